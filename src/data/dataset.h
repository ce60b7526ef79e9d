/* Datasets: labelled images in files, as float maps.
 *
 * A kind (mnist, cifar10, hdf5, synthetic) opens the training files or the test files as one
 * bcop_images; a bcop_dataset is one split of them. Reading is random access by index and safe from
 * several threads at once. Files are mapped, not copied, so ranks of one node share the pages. */
#ifndef BCOP_DATA_DATASET_H
#define BCOP_DATA_DATASET_H

#include "base/option.h"
#include "base/shape.h"

#include <stdint.h>

typedef enum bcop_split { BCOP_SPLIT_TRAIN, BCOP_SPLIT_HOLDOUT, BCOP_SPLIT_TEST } bcop_split;

/* What a kind's `open` gives. */
typedef struct bcop_images {
    long count;
    bcop_shape shape;
    int classes;          /* labels are 0 .. classes-1, checked at opening */
    uint64_t fingerprint; /* XXH3-64 over the labels and pixels in order: names the data */
    void *state;          /* the kind's own; released by its `close` */
} bcop_images;

typedef struct bcop_set_kind {
    const char *name;
    const char *help; /* one sentence */
    const bcop_option *options;
    size_t options_size;
    /* Opens the training files, or with `test` the test files. Checks everything there is to check:
     * sizes against headers exactly, label range, overflow. BCOP_NO_INPUT when a file is missing,
     * BCOP_BAD_DATA naming the file and what is wrong. Local. */
    bcop_status (*open)(const void *options, bool test, bcop_images *images);
    /* Writes example `index` as floats in NHWC order into x[height][width][channels]; uint8 pixels
     * are divided by 255. Local. */
    void (*read)(const bcop_images *images, long index, float *x);
    int (*label)(const bcop_images *images, long index);
    void (*close)(bcop_images *images);
} bcop_set_kind;

/* All kinds, ending with NULL: the folder's list (set_registry.c). */
extern const bcop_set_kind *const bcop_set_kinds[];

/* The keys of the `data` section that all kinds share. */
typedef struct bcop_dataset_options {
    int kind;         /* index in bcop_set_kinds; read by the caller from the key `kind` */
    long holdout;     /* last examples of the training files, never trained on */
    int augment;      /* bcop_augment_rule in augment.h */
    int crop_padding; /* pixels of zeros around the map before a random crop */
} bcop_dataset_options;

extern const bcop_option bcop_dataset_table[]; /* holdout, augment, crop_padding (not kind) */

typedef struct bcop_dataset bcop_dataset; /* one split */

/* Opens a split: train = training files less the last `holdout` examples, holdout = those (empty
 * when holdout is 0), test = the test files. `kind_options` is the struct of the kind's own table
 * and is copied. BCOP_CONFIG when holdout leaves nothing to train on. Local. */
bcop_status bcop_dataset_open(const bcop_dataset_options *options, const void *kind_options,
                              bcop_split split, bcop_dataset **dataset);

/* Opens the images x [N,H,W,C] of an HDF5 file whatever else is in it, under the rules for the
 * kind `hdf5`. They have no labels: bcop_dataset_label gives -1, and there are 0 classes.
 * BCOP_NO_INPUT, BCOP_BAD_DATA naming the file. Local. */
bcop_status bcop_dataset_open_images(const char *path, bcop_dataset **dataset);

void bcop_dataset_close(bcop_dataset *dataset); /* NULL is allowed */

long bcop_dataset_count(const bcop_dataset *dataset);
bcop_shape bcop_dataset_shape(const bcop_dataset *dataset);
int bcop_dataset_classes(const bcop_dataset *dataset);

/* Fingerprint of the files behind the split (the same for train and holdout). */
uint64_t bcop_dataset_fingerprint(const bcop_dataset *dataset);

/* Example `index` of the split, 0 <= index < count; see bcop_set_kind.read. Thread-safe. Local. */
void bcop_dataset_read(const bcop_dataset *dataset, long index, float *x);
int bcop_dataset_label(const bcop_dataset *dataset, long index);

/* "train", "holdout", "test". */
const char *bcop_dataset_split_name(bcop_split split);
bcop_status bcop_dataset_split_parse(const char *text, bcop_split *split); /* BCOP_USAGE */

#endif
