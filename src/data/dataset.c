#include "data/dataset.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

enum { COUNT_MAX = INT32_MAX }; /* what the sampler's order can hold */

const bcop_option bcop_dataset_table[] = {
    {.key = "holdout",
     .type = BCOP_OPTION_LONG,
     .offset = offsetof(bcop_dataset_options, holdout),
     .min = 0,
     .max = COUNT_MAX,
     .fallback = "0",
     .unit = "examples",
     .help = "last examples of the training files, kept apart and never trained on"},
    {.key = "augment",
     .type = BCOP_OPTION_CHOICE,
     .offset = offsetof(bcop_dataset_options, augment),
     .choices = "none|flip|crop|crop_flip",
     .fallback = "none",
     .help = "random changes of the training images: mirrored, shifted, or both"},
    {.key = "crop_padding",
     .type = BCOP_OPTION_INT,
     .offset = offsetof(bcop_dataset_options, crop_padding),
     .min = 0,
     .max = 64,
     .fallback = "4",
     .unit = "pixels",
     .help = "largest shift of a crop; what moves in from outside is zero"},
    {0},
};

struct bcop_dataset {
    const bcop_set_kind *kind;
    bcop_images images;
    long first, count; /* the split's examples among the images */
};

static bcop_status divide(const bcop_dataset_options *options, bcop_split split,
                          bcop_dataset *dataset) {
    const long total = dataset->images.count;
    if (total > COUNT_MAX)
        return bcop_status_fail(BCOP_BAD_DATA, "data: %ld examples, at most %d are supported",
                                total, COUNT_MAX);
    dataset->first = 0;
    dataset->count = total;
    if (split == BCOP_SPLIT_TEST)
        return BCOP_OK;
    if (options->holdout >= total)
        return bcop_status_fail(
            BCOP_CONFIG, "data.holdout: %ld of %ld training examples leaves none to train on",
            options->holdout, total);
    const long trained = total - options->holdout;
    dataset->first = split == BCOP_SPLIT_TRAIN ? 0 : trained;
    dataset->count = split == BCOP_SPLIT_TRAIN ? trained : options->holdout;
    return BCOP_OK;
}

bcop_status bcop_dataset_open(const bcop_dataset_options *options, const void *kind_options,
                              bcop_split split, bcop_dataset **dataset) {
    *dataset = NULL;
    bcop_dataset *opened = calloc(1, sizeof *opened);
    if (!opened)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory: %zu bytes", sizeof *opened);
    opened->kind = bcop_set_kinds[options->kind];
    bcop_status status =
        opened->kind->open(kind_options, split == BCOP_SPLIT_TEST, &opened->images);
    if (status != BCOP_OK) {
        free(opened);
        return status;
    }
    status = divide(options, split, opened);
    if (status != BCOP_OK) {
        bcop_dataset_close(opened);
        return status;
    }
    *dataset = opened;
    return BCOP_OK;
}

bcop_status bcop_dataset_open_images(const char *path, bcop_dataset **dataset) {
    *dataset = NULL;
    bcop_dataset_options options = {0};
    while (strcmp(bcop_set_kinds[options.kind]->name, "hdf5") != 0)
        options.kind++;
    const bcop_set_kind *kind = bcop_set_kinds[options.kind];
    const bcop_option *file = kind->options;
    while (strcmp(file->key, "train") != 0)
        file++;
    if (strlen(path) >= BCOP_TEXT_MAX)
        return bcop_status_fail(BCOP_USAGE, "%s: the path is too long", path);
    void *kind_options = calloc(1, kind->options_size); /* with 0 classes */
    if (!kind_options)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory for %s", path);
    strcpy((char *)kind_options + file->offset, path);
    const bcop_status status = bcop_dataset_open(&options, kind_options, BCOP_SPLIT_TRAIN, dataset);
    free(kind_options);
    return status;
}

void bcop_dataset_close(bcop_dataset *dataset) {
    if (!dataset)
        return;
    dataset->kind->close(&dataset->images);
    free(dataset);
}

long bcop_dataset_count(const bcop_dataset *dataset) {
    return dataset->count;
}

bcop_shape bcop_dataset_shape(const bcop_dataset *dataset) {
    return dataset->images.shape;
}

int bcop_dataset_classes(const bcop_dataset *dataset) {
    return dataset->images.classes;
}

uint64_t bcop_dataset_fingerprint(const bcop_dataset *dataset) {
    return dataset->images.fingerprint;
}

void bcop_dataset_read(const bcop_dataset *dataset, long index, float *x) {
    dataset->kind->read(&dataset->images, dataset->first + index, x);
}

int bcop_dataset_label(const bcop_dataset *dataset, long index) {
    return dataset->kind->label(&dataset->images, dataset->first + index);
}

static const char *const split_names[] = {
    [BCOP_SPLIT_TRAIN] = "train", [BCOP_SPLIT_HOLDOUT] = "holdout", [BCOP_SPLIT_TEST] = "test"};

const char *bcop_dataset_split_name(bcop_split split) {
    return split_names[split];
}

bcop_status bcop_dataset_split_parse(const char *text, bcop_split *split) {
    for (bcop_split s = BCOP_SPLIT_TRAIN; s <= BCOP_SPLIT_TEST; s++)
        if (strcmp(text, split_names[s]) == 0) {
            *split = s;
            return BCOP_OK;
        }
    return bcop_status_fail(BCOP_USAGE, "split %s: must be train, holdout or test", text);
}
