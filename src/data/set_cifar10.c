/* CIFAR-10, binary version: records of one label byte and 32 x 32 pixels as three colour planes. */
#include "data/dataset.h"
#include "data/mapped.h"

#include <stddef.h>
#include <stdlib.h>
#define XXH_INLINE_ALL /* the streaming state on the stack needs it */
#include <xxhash.h>

enum { CLASSES = 10, SIDE = 32, PLANE = SIDE * SIDE, CHANNELS = 3 };
enum { PIXELS = CHANNELS * PLANE, RECORD = 1 + PIXELS, FILES_MAX = 5 };

typedef struct cifar10_options {
    char dir[BCOP_TEXT_MAX];
} cifar10_options;

static const bcop_option table[] = {
    {.key = "dir",
     .type = BCOP_OPTION_TEXT,
     .offset = offsetof(cifar10_options, dir),
     .help = "folder of data_batch_1.bin to data_batch_5.bin and test_batch.bin"},
    {0},
};

typedef struct cifar10_state {
    int files;
    bcop_mapped file[FILES_MAX];
    long start[FILES_MAX + 1]; /* first example of each file; at the end their number */
} cifar10_state;

static bcop_status check_records(const bcop_mapped *file) {
    if (file->size % RECORD)
        return bcop_status_fail(
            BCOP_BAD_DATA,
            "%s: %ld bytes, not a whole number of %d-byte records (next are %ld, %ld)", file->path,
            file->size, RECORD, file->size / RECORD * RECORD, (file->size / RECORD + 1) * RECORD);
    for (long i = 0; i < file->size / RECORD; i++)
        if (file->data[i * RECORD] >= CLASSES)
            return bcop_status_fail(BCOP_BAD_DATA, "%s: label %ld is %d, must be 0 to %d",
                                    file->path, i, file->data[i * RECORD], CLASSES - 1);
    return BCOP_OK;
}

static bcop_status load(const char *dir, bool test, cifar10_state *s) {
    static const char *const training[FILES_MAX] = {"data_batch_1.bin", "data_batch_2.bin",
                                                    "data_batch_3.bin", "data_batch_4.bin",
                                                    "data_batch_5.bin"};
    const int files = test ? 1 : FILES_MAX;
    for (int f = 0; f < files; f++) {
        bcop_mapped *file = &s->file[f];
        BCOP_TRY(bcop_mapped_open(dir, test ? "test_batch.bin" : training[f], file));
        s->files = f + 1;
        BCOP_TRY(check_records(file));
        s->start[f + 1] = s->start[f] + file->size / RECORD;
    }
    return BCOP_OK;
}

static const unsigned char *record(const cifar10_state *s, long index) {
    int f = 0;
    while (index >= s->start[f + 1])
        f++;
    return s->file[f].data + (index - s->start[f]) * RECORD;
}

static uint64_t fingerprint(const cifar10_state *s) {
    const long count = s->start[s->files];
    XXH3_state_t hash;
    XXH3_64bits_reset(&hash);
    for (long i = 0; i < count; i++)
        XXH3_64bits_update(&hash, record(s, i), 1);
    for (long i = 0; i < count; i++)
        XXH3_64bits_update(&hash, record(s, i) + 1, PIXELS);
    return XXH3_64bits_digest(&hash);
}

static void close_cifar10(bcop_images *images) {
    cifar10_state *s = images->state;
    for (int f = 0; f < s->files; f++)
        bcop_mapped_close(&s->file[f]);
    free(s);
    *images = (bcop_images){0};
}

static bcop_status open_cifar10(const void *options, bool test, bcop_images *images) {
    const cifar10_options *o = options;
    cifar10_state *s = calloc(1, sizeof *s);
    if (!s)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory: %zu bytes", sizeof *s);
    *images = (bcop_images){.shape = {SIDE, SIDE, CHANNELS}, .classes = CLASSES, .state = s};
    const bcop_status status = load(o->dir, test, s);
    if (status != BCOP_OK) {
        close_cifar10(images);
        return status;
    }
    images->count = s->start[s->files];
    images->fingerprint = fingerprint(s);
    return BCOP_OK;
}

static void read_cifar10(const bcop_images *images, long index, float *x) {
    const unsigned char *planes = record(images->state, index) + 1;
    for (int p = 0; p < PLANE; p++)
        for (int c = 0; c < CHANNELS; c++)
            x[p * CHANNELS + c] = (float)planes[c * PLANE + p] / 255;
}

static int label_cifar10(const bcop_images *images, long index) {
    return record(images->state, index)[0];
}

const bcop_set_kind bcop_set_cifar10 = {
    .name = "cifar10",
    .help = "CIFAR-10, the binary version",
    .options = table,
    .options_size = sizeof(cifar10_options),
    .open = open_cifar10,
    .read = read_cifar10,
    .label = label_cifar10,
    .close = close_cifar10,
};
