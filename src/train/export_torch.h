/* The PyTorch side of an export: a Python file that rebuilds the network from the exported file,
 * with nothing of this project. */
#ifndef BCOP_TRAIN_EXPORT_TORCH_H
#define BCOP_TRAIN_EXPORT_TORCH_H

#include "nn/model.h"

#include <stdio.h>

typedef struct bcop_export_torch {
    const bcop_model *model;
    const char *name, *origin; /* of the experiment; where it comes from, one line */
    const char *file;          /* the exported file's name, beside the Python file */
    bool hdf5;                 /* else safetensors */
} bcop_export_torch;

/* BCOP_BAD_DATA naming the layer when a layer's kind has no form in PyTorch. Local. */
bcop_status bcop_export_torch_check(const bcop_model *model);

/* Writes the program; the caller checks `out` for errors. Local. */
void bcop_export_torch_write(const bcop_export_torch *what, FILE *out);

#endif
