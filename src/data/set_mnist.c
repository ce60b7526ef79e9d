/* MNIST and its relatives (Fashion-MNIST, KMNIST): four IDX files of 8-bit grey images and labels.
 *
 * IDX: big-endian 32-bit words, first the magic number 0x000008DD (type unsigned byte, DD
 * dimensions), then the dimensions; then the bytes. */
#include "data/dataset.h"
#include "data/mapped.h"

#include <stddef.h>
#include <stdlib.h>
#define XXH_INLINE_ALL /* the streaming state on the stack needs it */
#include <xxhash.h>

enum { CLASSES = 10, SIDE_MAX = 4096 };

typedef struct mnist_options {
    char dir[BCOP_TEXT_MAX];
} mnist_options;

static const bcop_option table[] = {
    {.key = "dir",
     .type = BCOP_OPTION_TEXT,
     .offset = offsetof(mnist_options, dir),
     .help = "folder of train-images-idx3-ubyte and the three others, plain or .gz"},
    {0},
};

typedef struct mnist_state {
    bcop_mapped image_file, label_file;
    const unsigned char *pixels; /* [count][height][width] */
    const unsigned char *labels; /* [count] */
} mnist_state;

static long word(const bcop_mapped *file, int index) {
    const unsigned char *b = file->data + 4L * index;
    return (long)b[0] << 24 | (long)b[1] << 16 | (long)b[2] << 8 | (long)b[3];
}

/* Checks the header and that the file has exactly the bytes it promises. */
static bcop_status check_idx(const bcop_mapped *file, int dimensions, long dimension[]) {
    const long header = 4L * (1 + dimensions);
    const long magic = 0x800 + dimensions;
    if (file->size < header)
        return bcop_status_fail(BCOP_BAD_DATA, "%s: %ld bytes, an IDX header alone has %ld",
                                file->path, file->size, header);
    if (word(file, 0) != magic)
        return bcop_status_fail(BCOP_BAD_DATA, "%s: magic number 0x%08lx instead of 0x%08lx",
                                file->path, (unsigned long)word(file, 0), (unsigned long)magic);
    for (int i = 0; i < dimensions; i++) {
        dimension[i] = word(file, 1 + i);
        if (dimension[i] == 0 || (i > 0 && dimension[i] > SIDE_MAX))
            return bcop_status_fail(BCOP_BAD_DATA, "%s: dimension %d is %ld, must be 1 to %ld",
                                    file->path, i, dimension[i],
                                    i > 0 ? (long)SIDE_MAX : (long)UINT32_MAX);
    }
    long size = dimension[0]; /* below 2^32 * 4096 * 4096 */
    for (int i = 1; i < dimensions; i++)
        size *= dimension[i];
    if (file->size != header + size)
        return bcop_status_fail(
            BCOP_BAD_DATA, "%s: the header promises %ld bytes, the file has %ld (%s)", file->path,
            header + size, file->size, file->size < header + size ? "truncated" : "padded");
    return BCOP_OK;
}

static bcop_status check_labels(const bcop_mapped *file, long count, const unsigned char *labels) {
    for (long i = 0; i < count; i++)
        if (labels[i] >= CLASSES)
            return bcop_status_fail(BCOP_BAD_DATA, "%s: label %ld is %d, must be 0 to %d",
                                    file->path, i, labels[i], CLASSES - 1);
    return BCOP_OK;
}

static bcop_status open_either(const char *dir, const char *name, bcop_mapped *file) {
    bcop_status status = bcop_mapped_open(dir, name, file);
    if (status != BCOP_NO_INPUT)
        return status;
    status = bcop_mapped_unpack(dir, name, file);
    if (status == BCOP_NO_INPUT)
        return bcop_status_fail(BCOP_NO_INPUT, "%s/%s: no such file, nor with .gz", dir, name);
    return status;
}

static bcop_status load(const char *dir, bool test, mnist_state *s, bcop_images *images) {
    BCOP_TRY(open_either(dir, test ? "t10k-images-idx3-ubyte" : "train-images-idx3-ubyte",
                         &s->image_file));
    BCOP_TRY(open_either(dir, test ? "t10k-labels-idx1-ubyte" : "train-labels-idx1-ubyte",
                         &s->label_file));
    long image[3] = {0}, label[1] = {0};
    BCOP_TRY(check_idx(&s->image_file, 3, image));
    BCOP_TRY(check_idx(&s->label_file, 1, label));
    if (image[0] != label[0])
        return bcop_status_fail(BCOP_BAD_DATA, "%s: %ld images, but %ld labels in %s",
                                s->image_file.path, image[0], label[0], s->label_file.path);
    s->pixels = s->image_file.data + 16;
    s->labels = s->label_file.data + 8;
    BCOP_TRY(check_labels(&s->label_file, label[0], s->labels));
    images->count = image[0];
    images->shape = (bcop_shape){(int)image[1], (int)image[2], 1};
    images->classes = CLASSES;
    return BCOP_OK;
}

static uint64_t fingerprint(const mnist_state *s) {
    XXH3_state_t hash;
    XXH3_64bits_reset(&hash);
    XXH3_64bits_update(&hash, s->labels, (size_t)s->label_file.size - 8);
    XXH3_64bits_update(&hash, s->pixels, (size_t)s->image_file.size - 16);
    return XXH3_64bits_digest(&hash);
}

static void close_mnist(bcop_images *images) {
    mnist_state *s = images->state;
    bcop_mapped_close(&s->image_file);
    bcop_mapped_close(&s->label_file);
    free(s);
    *images = (bcop_images){0};
}

static bcop_status open_mnist(const void *options, bool test, bcop_images *images) {
    const mnist_options *o = options;
    mnist_state *s = calloc(1, sizeof *s);
    if (!s)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory: %zu bytes", sizeof *s);
    *images = (bcop_images){.state = s};
    const bcop_status status = load(o->dir, test, s, images);
    if (status == BCOP_OK)
        images->fingerprint = fingerprint(s);
    else
        close_mnist(images);
    return status;
}

static void read_mnist(const bcop_images *images, long index, float *x) {
    const mnist_state *s = images->state;
    const long size = bcop_shape_size(images->shape);
    const unsigned char *pixels = s->pixels + index * size;
    for (long i = 0; i < size; i++)
        x[i] = (float)pixels[i] / 255;
}

static int label_mnist(const bcop_images *images, long index) {
    const mnist_state *s = images->state;
    return s->labels[index];
}

const bcop_set_kind bcop_set_mnist = {
    .name = "mnist",
    .help = "MNIST, Fashion-MNIST and others in IDX files",
    .options = table,
    .options_size = sizeof(mnist_options),
    .open = open_mnist,
    .read = read_mnist,
    .label = label_mnist,
    .close = close_mnist,
};
