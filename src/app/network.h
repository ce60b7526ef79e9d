/* A trained network opened from its checkpoint for evaluation: what the commands that use
 * one share. */
#ifndef BCOP_APP_NETWORK_H
#define BCOP_APP_NETWORK_H

#include "train/certify.h"
#include "train/checkpoint.h"
#include "train/evaluate.h"

typedef struct bcop_network {
    bcop_snapshot snapshot;
    bcop_experiment experiment;
    bcop_model *model;
    bcop_stage stage; /* without a split: the optimizer's state */
    bcop_checkpoint checkpoint;
    bcop_dataset *dataset; /* NULL without a split */
    bcop_split split;
    bcop_evaluator evaluator;
    bcop_certifier certifier;
    bcop_arena arena;
} bcop_network;

/* Opens CHECKPOINT (as users name it), builds the model and loads the stored operators and biases.
 * `split` NULL: no data is opened; `data`, when not NULL, replaces the place of the data. On
 * failure nothing remains open. Collective. */
bcop_status bcop_network_open(const bcop_comm *comm, const char *checkpoint, const char *split,
                              const char *data, bcop_network *network);

/* The same with the images of an HDF5 file, without labels, in a split's place. Collective. */
bcop_status bcop_network_open_images(const bcop_comm *comm, const char *checkpoint,
                                     const char *file, bcop_network *network);
void bcop_network_close(bcop_network *network);

/* With the blocks loaded: recomputes every operator from its blocks. BCOP_BAD_DATA when one differs
 * from the stored by more than 1e-5. The model has the stored operators afterwards. Local. */
bcop_status bcop_network_compare(bcop_network *network);

/* BCOP_BAD_DATA when the network's Lipschitz bound is not finite: then nothing can be certified. */
bcop_status bcop_network_check_bound(double lipschitz);

#endif
