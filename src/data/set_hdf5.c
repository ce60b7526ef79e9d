/* Labelled images in HDF5 files: datasets `x` [N,H,W,C], float32 or uint8, and `y` [N], integers.
 *
 * The files come from strangers, so what could make HDF5 read other files, run foreign code or take
 * memory that the file does not account for is refused before anything is read: links other than
 * hard ones, external storage, virtual datasets, variable length, plugins, filters other than
 * shuffle, fletcher32 and deflate. The images are then read into memory once.
 *
 * The fingerprint is over y as 32-bit integers, then x as stored in memory. Without classes (which
 * no configuration can ask for, see bcop_dataset_open_images) there are no labels: y is not read.
 */
#include "data/dataset.h"

#include <hdf5.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#define XXH_INLINE_ALL /* the streaming state on the stack needs it */
#include <xxhash.h>

enum { SIDE_MAX = 4096, CHANNELS_MAX = 65536, RATIO_MAX = 1100 };
#define BYTES_MAX (64L << 30)

typedef struct hdf5_options {
    char train[BCOP_TEXT_MAX], test[BCOP_TEXT_MAX];
    int classes;
} hdf5_options;

static const bcop_option table[] = {
    {.key = "train",
     .type = BCOP_OPTION_TEXT,
     .offset = offsetof(hdf5_options, train),
     .help = "file with x [N,H,W,C], float32 or uint8, and y [N], integers"},
    {.key = "test",
     .type = BCOP_OPTION_TEXT,
     .offset = offsetof(hdf5_options, test),
     .empty = true,
     .fallback = "\"\"",
     .help = "file of the test images, laid out like train; may be left out"},
    {.key = "classes",
     .type = BCOP_OPTION_INT,
     .offset = offsetof(hdf5_options, classes),
     .min = 2,
     .max = 65536,
     .help = "number of classes; labels are 0 to classes - 1"},
    {0},
};

typedef struct hdf5_state {
    void *pixels;    /* [count][height][width][channels], float or unsigned char */
    bool bytes;      /* the latter */
    int32_t *labels; /* [count], or NULL */
} hdf5_state;

/* One dataset of a file while it is checked and read. */
typedef struct source {
    const char *path, *name; /* of the file; "x" or "y" */
    hid_t file;
    long file_size;
    hid_t dataset, type, space, creation; /* 0 or less: not open */
    int rank;
    hsize_t dim[4], chunk[4]; /* chunk: only when `chunked` */
    bool chunked;
} source;

static bcop_status refuse(const source *s, const char *what) {
    return bcop_status_fail(BCOP_BAD_DATA, "%s: dataset %s: %s", s->path, s->name, what);
}

static bcop_status open_dataset(source *s) {
    H5L_info_t link;
    if (H5Lget_info(s->file, s->name, &link, H5P_DEFAULT) < 0)
        return refuse(s, "there is none");
    if (link.type != H5L_TYPE_HARD)
        return refuse(s, "soft and external links are not followed");
    s->dataset = H5Dopen2(s->file, s->name, H5P_DEFAULT);
    if (s->dataset < 0)
        return refuse(s, "not a dataset, or damaged");
    s->creation = H5Dget_create_plist(s->dataset);
    s->type = H5Dget_type(s->dataset);
    if (s->creation < 0 || s->type < 0)
        return refuse(s, "damaged");
    return BCOP_OK;
}

static bool filters_allowed(hid_t creation) {
    const int filters = H5Pget_nfilters(creation);
    for (int i = 0; i < filters; i++) {
        unsigned flags;
        size_t values = 0;
        const H5Z_filter_t filter =
            H5Pget_filter2(creation, (unsigned)i, &flags, &values, NULL, 0, NULL, NULL);
        if (filter != H5Z_FILTER_DEFLATE && filter != H5Z_FILTER_SHUFFLE &&
            filter != H5Z_FILTER_FLETCHER32)
            return false;
    }
    return filters >= 0;
}

static bcop_status check_layout(source *s) {
    const H5D_layout_t layout = H5Pget_layout(s->creation);
    if (layout == H5D_VIRTUAL)
        return refuse(s, "virtual datasets are not read");
    if (layout != H5D_COMPACT && layout != H5D_CONTIGUOUS && layout != H5D_CHUNKED)
        return refuse(s, "unknown layout");
    if (H5Pget_external_count(s->creation) != 0)
        return refuse(s, "external storage is not read");
    if (!filters_allowed(s->creation))
        return refuse(s, "filters other than shuffle, fletcher32 and deflate are not used");
    s->chunked = layout == H5D_CHUNKED;
    return BCOP_OK;
}

static bcop_status check_extent(source *s, int rank) {
    s->space = H5Dget_space(s->dataset);
    if (s->space < 0 || H5Sget_simple_extent_ndims(s->space) != rank)
        return refuse(s,
                      rank == 4 ? "must have 4 dimensions [N,H,W,C]" : "must have 1 dimension [N]");
    s->rank = rank;
    if (H5Sget_simple_extent_dims(s->space, s->dim, NULL) != rank)
        return refuse(s, "damaged");
    if (s->chunked && H5Pget_chunk(s->creation, rank, s->chunk) != rank)
        return refuse(s, "damaged");
    const hsize_t most[4] = {INT32_MAX, SIDE_MAX, SIDE_MAX, CHANNELS_MAX};
    for (int i = 0; i < rank; i++)
        if (s->dim[i] < 1 || s->dim[i] > most[i])
            return bcop_status_fail(
                BCOP_BAD_DATA, "%s: dataset %s: dimension %d is %llu, must be 1 to %llu", s->path,
                s->name, i, (unsigned long long)s->dim[i], (unsigned long long)most[i]);
    return BCOP_OK;
}

/* Product of the dimensions and the size of an element; -1 when it does not fit a long. */
static long bytes_of(const hsize_t dim[], int rank, size_t element) {
    long bytes = (long)element;
    for (int i = 0; i < rank; i++)
        if (dim[i] > INT32_MAX || __builtin_mul_overflow(bytes, (long)dim[i], &bytes))
            return -1;
    return bytes;
}

/* Chunks that were never written would read as zeros. */
static bcop_status check_chunks(const source *s) {
    hsize_t written, wanted = 1;
    for (int i = 0; i < s->rank; i++)
        wanted *= (s->dim[i] + s->chunk[i] - 1) / s->chunk[i];
    if (H5Dget_num_chunks(s->dataset, s->space, &written) < 0)
        return refuse(s, "damaged");
    return written == wanted ? BCOP_OK : refuse(s, "some of its chunks were never written");
}

/* That the file holds as much as the dimensions promise, so that a small file cannot ask for much
 * memory: as many bytes, or with filters (deflate packs at most about 1032 to 1) a sane share. HDF5
 * takes memory for whole chunks, so they fall under the same rule. */
static bcop_status check_size(const source *s, size_t element) {
    const long bytes = bytes_of(s->dim, s->rank, element);
    const long chunk = s->chunked ? bytes_of(s->chunk, s->rank, element) : 1;
    const long needed = chunk > bytes ? chunk : bytes;
    const long stored = (long)H5Dget_storage_size(s->dataset);
    if (bytes < 1 || chunk < 1 || needed > BYTES_MAX)
        return refuse(s, "larger than 64 GiB");
    if (stored < 0 || stored > s->file_size)
        return refuse(s, "more bytes than the file has");
    if (s->chunked)
        BCOP_TRY(check_chunks(s));
    const bool filtered = H5Pget_nfilters(s->creation) > 0;
    if (filtered ? needed / RATIO_MAX > stored : needed > stored)
        return bcop_status_fail(BCOP_BAD_DATA,
                                "%s: dataset %s: its dimensions promise %ld bytes, %ld are stored",
                                s->path, s->name, needed, stored);
    return BCOP_OK;
}

static void close_source(source *s) {
    if (s->space > 0)
        H5Sclose(s->space);
    if (s->type > 0)
        H5Tclose(s->type);
    if (s->creation > 0)
        H5Pclose(s->creation);
    if (s->dataset > 0)
        H5Dclose(s->dataset);
}

static bcop_status read_all(const source *s, hid_t memory_type, size_t element, void **data) {
    const long bytes = bytes_of(s->dim, s->rank, element);
    if (bytes < 0)
        return refuse(s, "too large");
    *data = malloc((size_t)bytes);
    if (!*data)
        return bcop_status_fail(BCOP_INTERNAL, "%s: no memory for %ld bytes", s->path, bytes);
    if (H5Dread(s->dataset, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, *data) < 0)
        return refuse(s, "cannot be read: the file is damaged");
    return BCOP_OK;
}

static bool is_either(hid_t type, hid_t little, hid_t big) {
    return H5Tequal(type, little) > 0 || H5Tequal(type, big) > 0;
}

static bcop_status load_pixels(source *s, hdf5_state *state) {
    BCOP_TRY(open_dataset(s));
    BCOP_TRY(check_layout(s));
    state->bytes = is_either(s->type, H5T_STD_U8LE, H5T_STD_U8BE);
    if (!state->bytes && !is_either(s->type, H5T_IEEE_F32LE, H5T_IEEE_F32BE))
        return refuse(s, "must be float32 or uint8");
    BCOP_TRY(check_extent(s, 4));
    const size_t element = state->bytes ? 1 : sizeof(float);
    BCOP_TRY(check_size(s, element));
    BCOP_TRY(
        read_all(s, state->bytes ? H5T_NATIVE_UINT8 : H5T_NATIVE_FLOAT, element, &state->pixels));
    if (state->bytes)
        return BCOP_OK;
    const long count = bytes_of(s->dim, 4, 1);
    const float *value = state->pixels;
    for (long i = 0; i < count; i++)
        if (!isfinite(value[i]))
            return bcop_status_fail(BCOP_BAD_DATA, "%s: dataset x: a value of example %ld is %g",
                                    s->path, i / (count / (long)s->dim[0]), (double)value[i]);
    return BCOP_OK;
}

static bcop_status load_labels(source *s, int classes, hdf5_state *state) {
    BCOP_TRY(open_dataset(s));
    BCOP_TRY(check_layout(s));
    const size_t element = H5Tget_size(s->type);
    if (H5Tget_class(s->type) != H5T_INTEGER || element < 1 || element > 8 ||
        H5Tget_precision(s->type) != 8 * element)
        return refuse(s, "must be integers of 8, 16, 32 or 64 bits");
    BCOP_TRY(check_extent(s, 1));
    BCOP_TRY(check_size(s, element));
    /* The conversion clips what does not fit, which then is out of range as well. */
    void *labels = NULL;
    const bcop_status status = read_all(s, H5T_NATIVE_INT32, sizeof(int32_t), &labels);
    state->labels = labels;
    BCOP_TRY(status);
    for (long i = 0; i < (long)s->dim[0]; i++)
        if (state->labels[i] < 0 || state->labels[i] >= classes)
            return bcop_status_fail(BCOP_BAD_DATA,
                                    "%s: dataset y: label %ld is %d, must be 0 to %d", s->path, i,
                                    state->labels[i], classes - 1);
    return BCOP_OK;
}

static uint64_t fingerprint(const hdf5_state *state, const bcop_images *images) {
    const size_t count = (size_t)images->count, element = state->bytes ? 1 : sizeof(float);
    XXH3_state_t hash;
    XXH3_64bits_reset(&hash);
    if (state->labels)
        XXH3_64bits_update(&hash, state->labels, count * sizeof(int32_t));
    XXH3_64bits_update(&hash, state->pixels,
                       count * (size_t)bcop_shape_size(images->shape) * element);
    return XXH3_64bits_digest(&hash);
}

static bcop_status load(hid_t file, const char *path, long file_size, bcop_images *images) {
    hdf5_state *state = images->state;
    source y = {.path = path, .name = "y", .file = file, .file_size = file_size};
    source x = y;
    x.name = "x";
    const bool labelled = images->classes > 0;
    bcop_status status = labelled ? load_labels(&y, images->classes, state) : BCOP_OK;
    if (status == BCOP_OK)
        status = load_pixels(&x, state);
    if (status == BCOP_OK && labelled && x.dim[0] != y.dim[0])
        status = bcop_status_fail(BCOP_BAD_DATA, "%s: %llu images in x, %llu labels in y", path,
                                  (unsigned long long)x.dim[0], (unsigned long long)y.dim[0]);
    close_source(&x);
    close_source(&y);
    BCOP_TRY(status);
    images->count = (long)x.dim[0];
    images->shape = (bcop_shape){(int)x.dim[1], (int)x.dim[2], (int)x.dim[3]};
    images->fingerprint = fingerprint(state, images);
    return BCOP_OK;
}

/* Opened with the plain POSIX driver, without a lock: shared file systems often have none, and
 * nothing is written. */
static bcop_status open_file(const char *path, bcop_images *images) {
    struct stat info;
    if (stat(path, &info) || access(path, R_OK))
        return bcop_status_errno(BCOP_IO, "%s", path);
    if (!S_ISREG(info.st_mode))
        return bcop_status_fail(BCOP_BAD_DATA, "%s: not a regular file", path);
    H5PLset_loading_state(0);
    const hid_t access_list = H5Pcreate(H5P_FILE_ACCESS);
    H5Pset_fapl_sec2(access_list);
    H5Pset_file_locking(access_list, false, true);
    const hid_t file = H5Fopen(path, H5F_ACC_RDONLY, access_list);
    H5Pclose(access_list);
    if (file < 0)
        return bcop_status_fail(BCOP_BAD_DATA, "%s: no HDF5 file, or damaged", path);
    const bcop_status status = load(file, path, info.st_size, images);
    H5Fclose(file);
    return status;
}

static void close_hdf5(bcop_images *images) {
    hdf5_state *state = images->state;
    free(state->pixels);
    free(state->labels);
    free(state);
    *images = (bcop_images){0};
}

static bcop_status open_hdf5(const void *options, bool test, bcop_images *images) {
    const hdf5_options *o = options;
    if (test && !o->test[0])
        return bcop_status_fail(BCOP_NO_INPUT, "data.test: no file of test images is given");
    hdf5_state *state = calloc(1, sizeof *state);
    if (!state)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory: %zu bytes", sizeof *state);
    *images = (bcop_images){.classes = o->classes, .state = state};
    H5E_auto2_t print;
    void *print_to;
    H5Eget_auto2(H5E_DEFAULT, &print, &print_to);
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    const bcop_status status = open_file(test ? o->test : o->train, images);
    H5Eset_auto2(H5E_DEFAULT, print, print_to);
    if (status != BCOP_OK)
        close_hdf5(images);
    return status;
}

static void read_hdf5(const bcop_images *images, long index, float *x) {
    const hdf5_state *state = images->state;
    const long size = bcop_shape_size(images->shape);
    if (state->bytes) {
        const unsigned char *pixels = (const unsigned char *)state->pixels + index * size;
        for (long i = 0; i < size; i++)
            x[i] = (float)pixels[i] / 255;
    } else {
        memcpy(x, (const float *)state->pixels + index * size, (size_t)size * sizeof(float));
    }
}

static int label_hdf5(const bcop_images *images, long index) {
    const hdf5_state *state = images->state;
    return state->labels ? state->labels[index] : -1;
}

const bcop_set_kind bcop_set_hdf5 = {
    .name = "hdf5",
    .help = "x [N,H,W,C], float32 or uint8, and y [N] in HDF5 files",
    .options = table,
    .options_size = sizeof(hdf5_options),
    .open = open_hdf5,
    .read = read_hdf5,
    .label = label_hdf5,
    .close = close_hdf5,
};
