/* run: serial */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "data_support.h"

#include <hdf5.h>
#include <math.h>
#include <xxhash.h>

/* 5 images of 3 x 2 pixels with 2 channels. */
enum { N = 5, H = 3, W = 2, C = 2, SIZE = H * W * C, CLASSES = 7 };
static const hsize_t x_dim[4] = {N, H, W, C}, y_dim[1] = {N};

static char dir[256], path[512];
static float floats[N * SIZE];
static unsigned char bytes[N * SIZE];
static const int labels[N] = {6, 0, 3, 3, 1};

static hid_t file_create(void) {
    folder_empty(dir);
    const hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    NEED(file >= 0);
    return file;
}

/* Creates a dataset and, with `data`, writes it; `creation` is closed. */
static void put(hid_t file, const char *name, hid_t type, int rank, const hsize_t dim[],
                hid_t creation, hid_t memory_type, const void *data) {
    const hid_t space = H5Screate_simple(rank, dim, NULL);
    const hid_t set = H5Dcreate2(file, name, type, space, H5P_DEFAULT, creation, H5P_DEFAULT);
    NEED(space >= 0 && set >= 0);
    if (data)
        NEED(H5Dwrite(set, memory_type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) >= 0);
    H5Dclose(set);
    H5Sclose(space);
    if (creation != H5P_DEFAULT)
        H5Pclose(creation);
}

static void put_x(hid_t file) {
    put(file, "x", H5T_IEEE_F32LE, 4, x_dim, H5P_DEFAULT, H5T_NATIVE_FLOAT, floats);
}

static void put_y(hid_t file) {
    put(file, "y", H5T_STD_I32LE, 1, y_dim, H5P_DEFAULT, H5T_NATIVE_INT, labels);
}

static bcop_status open_set(bool test, bcop_images *images) {
    void *options = kind_options("hdf5");
    kind_set_text("hdf5", options, "train", test ? "nowhere" : path);
    kind_set_text("hdf5", options, "test", test ? path : "");
    kind_set_int("hdf5", options, "classes", CLASSES);
    const bcop_status status = bcop_set_kinds[kind_index("hdf5")]->open(options, test, images);
    free(options);
    return status;
}

static void expect_good(bool test, bool as_bytes) {
    const bcop_set_kind *kind = bcop_set_kinds[kind_index("hdf5")];
    bcop_images images;
    if (open_set(test, &images) != BCOP_OK)
        fail_msg("%s", bcop_status_message());
    assert_int_equal(images.count, N);
    assert_int_equal(images.classes, CLASSES);
    assert_true(bcop_shape_equal(images.shape, (bcop_shape){H, W, C}));
    for (int i = 0; i < N; i++) {
        float x[SIZE];
        kind->read(&images, i, x);
        assert_int_equal(kind->label(&images, i), labels[i]);
        for (int p = 0; p < SIZE; p++) {
            const int at = i * SIZE + p;
            assert_true(x[p] == (as_bytes ? (float)bytes[at] / 255.0f : floats[at]));
        }
    }
    unsigned char joined[sizeof labels + sizeof floats];
    const size_t pixels = as_bytes ? sizeof bytes : sizeof floats;
    memcpy(joined, labels, sizeof labels);
    memcpy(joined + sizeof labels, as_bytes ? (void *)bytes : (void *)floats, pixels);
    assert_true(images.fingerprint == XXH3_64bits(joined, sizeof labels + pixels));
    kind->close(&images);
}

/* The file, closed here, must be refused with both words in the message. */
static void expect_refused(hid_t file, const char *a, const char *b) {
    NEED(H5Fclose(file) >= 0);
    bcop_images images;
    assert_int_equal(open_set(false, &images), BCOP_BAD_DATA);
    const char *message = bcop_status_message();
    if (!strstr(message, path) || !strstr(message, a) || !strstr(message, b))
        fail_msg("'%s' lacks '%s', '%s' or '%s'", message, path, a, b);
}

static hid_t chunked(int rank, const hsize_t chunk[]) {
    const hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    NEED(H5Pset_chunk(creation, rank, chunk) >= 0);
    return creation;
}

static void test_types(void **state) {
    (void)state;
    const hid_t float_types[] = {H5T_IEEE_F32LE, H5T_IEEE_F32BE};
    const hid_t label_types[] = {H5T_STD_I8LE,  H5T_STD_U8LE,  H5T_STD_I16BE, H5T_STD_U16LE,
                                 H5T_STD_I32BE, H5T_STD_U32LE, H5T_STD_I64LE, H5T_STD_U64BE};
    for (int t = 0; t < 2; t++) {
        const hid_t file = file_create();
        put(file, "x", float_types[t], 4, x_dim, H5P_DEFAULT, H5T_NATIVE_FLOAT, floats);
        put_y(file);
        H5Fclose(file);
        expect_good(t == 1, false);
    }
    for (int t = 0; t < 8; t++) {
        const hid_t file = file_create();
        put(file, "x", H5T_STD_U8LE, 4, x_dim, H5P_DEFAULT, H5T_NATIVE_UINT8, bytes);
        put(file, "y", label_types[t], 1, y_dim, H5P_DEFAULT, H5T_NATIVE_INT, labels);
        H5Fclose(file);
        expect_good(false, true);
    }
}

static void test_layouts(void **state) {
    (void)state;
    const hsize_t chunk[4] = {2, 2, 2, 1};
    for (int filters = 0; filters < 8; filters++) {
        const hid_t file = file_create(), creation = chunked(4, chunk);
        if (filters & 1)
            H5Pset_shuffle(creation);
        if (filters & 2)
            H5Pset_deflate(creation, 4);
        if (filters & 4)
            H5Pset_fletcher32(creation);
        put(file, "x", H5T_IEEE_F32LE, 4, x_dim, creation, H5T_NATIVE_FLOAT, floats);
        put_y(file);
        H5Fclose(file);
        expect_good(false, false);
    }
    const hid_t file = file_create(), creation = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_layout(creation, H5D_COMPACT);
    put(file, "x", H5T_STD_U8LE, 4, x_dim, creation, H5T_NATIVE_UINT8, bytes);
    put_y(file);
    H5Fclose(file);
    expect_good(false, true);
}

/* What stands beside x does not matter, labels neither. */
static void test_images_alone(void **state) {
    (void)state;
    for (int with = 0; with < 3; with++) {
        const hid_t file = file_create();
        put_x(file);
        if (with == 1)
            put_y(file);
        if (with == 2)
            put(file, "y", H5T_IEEE_F64LE, 4, x_dim, H5P_DEFAULT, H5T_NATIVE_FLOAT, floats);
        H5Fclose(file);
        bcop_dataset *dataset;
        if (bcop_dataset_open_images(path, &dataset) != BCOP_OK)
            fail_msg("%s", bcop_status_message());
        assert_int_equal(bcop_dataset_count(dataset), N);
        assert_int_equal(bcop_dataset_classes(dataset), 0);
        assert_true(bcop_shape_equal(bcop_dataset_shape(dataset), (bcop_shape){H, W, C}));
        for (int i = 0; i < N; i++) {
            float x[SIZE];
            bcop_dataset_read(dataset, i, x);
            assert_memory_equal(x, floats + i * SIZE, sizeof x);
            assert_int_equal(bcop_dataset_label(dataset, i), -1);
        }
        assert_true(bcop_dataset_fingerprint(dataset) == XXH3_64bits(floats, sizeof floats));
        bcop_dataset_close(dataset);
    }
    const hid_t file = file_create();
    put_y(file);
    H5Fclose(file);
    bcop_dataset *dataset;
    assert_int_equal(bcop_dataset_open_images(path, &dataset), BCOP_BAD_DATA);
    assert_non_null(strstr(bcop_status_message(), "dataset x"));
    assert_int_equal(bcop_dataset_open_images("nowhere.h5", &dataset), BCOP_NO_INPUT);
    assert_null(dataset);
}

static void test_missing(void **state) {
    (void)state;
    bcop_images images;
    folder_empty(dir);
    assert_int_equal(open_set(false, &images), BCOP_NO_INPUT);
    assert_non_null(strstr(bcop_status_message(), path));
    void *options = kind_options("hdf5");
    kind_set_text("hdf5", options, "train", path);
    const bcop_set_kind *kind = bcop_set_kinds[kind_index("hdf5")];
    assert_int_equal(kind->open(options, true, &images), BCOP_NO_INPUT);
    assert_non_null(strstr(bcop_status_message(), "data.test"));
    free(options);
    hid_t file = file_create();
    put_x(file);
    expect_refused(file, "dataset y", "none");
    file = file_create();
    put_y(file);
    expect_refused(file, "dataset x", "none");
}

static void test_wrong_types(void **state) {
    (void)state;
    const hid_t x_types[] = {H5T_IEEE_F64LE, H5T_STD_I8LE, H5T_STD_U16LE};
    for (int t = 0; t < 3; t++) {
        const hid_t file = file_create();
        put(file, "x", x_types[t], 4, x_dim, H5P_DEFAULT, H5T_NATIVE_FLOAT, floats);
        put_y(file);
        expect_refused(file, "dataset x", "float32 or uint8");
    }
    hid_t file = file_create();
    put_x(file);
    put(file, "y", H5T_IEEE_F32LE, 1, y_dim, H5P_DEFAULT, H5T_NATIVE_INT, labels);
    expect_refused(file, "dataset y", "must be integers");
    const hid_t lengths = H5Tvlen_create(H5T_STD_I32LE);
    file = file_create();
    put_x(file);
    put(file, "y", lengths, 1, y_dim, H5P_DEFAULT, lengths, NULL);
    expect_refused(file, "dataset y", "must be integers");
    H5Tclose(lengths);
}

static void test_wrong_shapes(void **state) {
    (void)state;
    const hsize_t merged[3] = {N, H, W * C}, fewer[1] = {N - 1}, square[2] = {N, 1};
    const hsize_t empty[4] = {N, 0, W, C};
    hid_t file = file_create();
    put(file, "x", H5T_IEEE_F32LE, 3, merged, H5P_DEFAULT, H5T_NATIVE_FLOAT, floats);
    put_y(file);
    expect_refused(file, "dataset x", "4 dimensions");
    file = file_create();
    put(file, "x", H5T_IEEE_F32LE, 4, empty, H5P_DEFAULT, H5T_NATIVE_FLOAT, NULL);
    put_y(file);
    expect_refused(file, "dataset x", "dimension 1 is 0");
    file = file_create();
    put_x(file);
    put(file, "y", H5T_STD_I32LE, 2, square, H5P_DEFAULT, H5T_NATIVE_INT, labels);
    expect_refused(file, "dataset y", "1 dimension");
    file = file_create();
    put_x(file);
    put(file, "y", H5T_STD_I32LE, 1, fewer, H5P_DEFAULT, H5T_NATIVE_INT, labels);
    expect_refused(file, "5 images", "4 labels");
}

static void test_wrong_values(void **state) {
    (void)state;
    const long long wrong[] = {CLASSES, -1, 1LL << 32, 1LL << 62};
    for (int t = 0; t < 4; t++) {
        long long y[N] = {0};
        y[3] = wrong[t];
        const hid_t file = file_create();
        put_x(file);
        put(file, "y", H5T_STD_I64LE, 1, y_dim, H5P_DEFAULT, H5T_NATIVE_LLONG, y);
        expect_refused(file, "dataset y", "label 3");
    }
    const float odd[] = {NAN, INFINITY, -INFINITY};
    for (int t = 0; t < 3; t++) {
        const int at = 2 * SIZE + SIZE - 1;
        const float kept = floats[at];
        floats[at] = odd[t];
        const hid_t file = file_create();
        put_x(file);
        put_y(file);
        floats[at] = kept;
        expect_refused(file, "dataset x", "example 2");
    }
}

static void test_foreign_references(void **state) {
    (void)state;
    /* external storage: the bytes of any file, here one that exists and is large enough */
    hid_t file = file_create();
    file_put(dir, "secret", floats, sizeof floats);
    char secret[512];
    folder_path(dir, "secret", secret);
    hid_t creation = H5Pcreate(H5P_DATASET_CREATE);
    NEED(H5Pset_external(creation, secret, 0, sizeof floats) >= 0);
    put(file, "x", H5T_IEEE_F32LE, 4, x_dim, creation, H5T_NATIVE_FLOAT, NULL);
    put_y(file);
    expect_refused(file, "dataset x", "external storage");

    file = file_create();
    put(file, "real", H5T_IEEE_F32LE, 4, x_dim, H5P_DEFAULT, H5T_NATIVE_FLOAT, floats);
    const hid_t space = H5Screate_simple(4, x_dim, NULL);
    creation = H5Pcreate(H5P_DATASET_CREATE);
    NEED(H5Pset_virtual(creation, space, ".", "real", space) >= 0);
    H5Sclose(space);
    put(file, "x", H5T_IEEE_F32LE, 4, x_dim, creation, H5T_NATIVE_FLOAT, NULL);
    put_y(file);
    expect_refused(file, "dataset x", "virtual");

    file = file_create();
    put(file, "real", H5T_IEEE_F32LE, 4, x_dim, H5P_DEFAULT, H5T_NATIVE_FLOAT, floats);
    NEED(H5Lcreate_soft("/real", file, "x", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    put_y(file);
    expect_refused(file, "dataset x", "links");

    file = file_create();
    put_x(file);
    NEED(H5Lcreate_external("other.h5", "/y", file, "y", H5P_DEFAULT, H5P_DEFAULT) >= 0);
    expect_refused(file, "dataset y", "links");

    file = file_create();
    H5Gclose(H5Gcreate2(file, "x", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    put_y(file);
    expect_refused(file, "dataset x", "not a dataset");
}

static void test_foreign_filters(void **state) {
    (void)state;
    for (int t = 0; t < 3; t++) {
        const hid_t file = file_create(), creation = chunked(4, x_dim);
        if (t == 0)
            H5Pset_nbit(creation);
        else if (t == 1)
            H5Pset_scaleoffset(creation, H5Z_SO_INT, 0);
        else /* one that only a plugin could provide */
            NEED(H5Pset_filter(creation, 32000, H5Z_FLAG_OPTIONAL, 0, NULL) >= 0);
        put(file, "x", H5T_STD_U8LE, 4, x_dim, creation, H5T_NATIVE_UINT8, bytes);
        put_y(file);
        expect_refused(file, "dataset x", "filters");
    }
}

/* Small files that promise much, or whose data was never written. */
static void test_promises(void **state) {
    (void)state;
    const hsize_t large[4] = {2000000000, 4096, 4096, 3}, some[4] = {100000, 100, 100, 1};
    const hsize_t one[4] = {1, 100, 100, 1};
    hid_t file = file_create();
    put(file, "x", H5T_STD_U8LE, 4, large, chunked(4, one), H5T_NATIVE_UINT8, NULL);
    put_y(file);
    expect_refused(file, "dataset x", "64 GiB");
    file = file_create();
    put(file, "x", H5T_STD_U8LE, 4, some, H5P_DEFAULT, H5T_NATIVE_UINT8, NULL);
    put_y(file);
    expect_refused(file, "promise 1000000000 bytes", "0 are stored");
    for (int filtered = 0; filtered < 2; filtered++) {
        const hid_t creation = chunked(4, one);
        if (filtered)
            H5Pset_deflate(creation, 9);
        file = file_create();
        put(file, "x", H5T_STD_U8LE, 4, some, creation, H5T_NATIVE_UINT8, NULL);
        put_y(file);
        expect_refused(file, "dataset x", "never written");
    }
}

static void test_damaged_files(void **state) {
    (void)state;
    const hid_t file = file_create();
    put_x(file);
    put_y(file);
    H5Fclose(file);
    const char *name = strrchr(path, '/') + 1;
    size_t size;
    unsigned char *data = file_get(dir, name, &size);
    bcop_images images;
    for (size_t cut = 0; cut < size; cut += 61) {
        file_put(dir, name, data, cut);
        assert_int_equal(open_set(false, &images), BCOP_BAD_DATA);
        assert_non_null(strstr(bcop_status_message(), path));
    }
    memset(data, 'a', size);
    file_put(dir, name, data, size);
    assert_int_equal(open_set(false, &images), BCOP_BAD_DATA);
    free(data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_types),           cmocka_unit_test(test_layouts),
        cmocka_unit_test(test_images_alone),    cmocka_unit_test(test_missing),
        cmocka_unit_test(test_wrong_types),     cmocka_unit_test(test_wrong_shapes),
        cmocka_unit_test(test_wrong_values),    cmocka_unit_test(test_foreign_references),
        cmocka_unit_test(test_foreign_filters), cmocka_unit_test(test_promises),
        cmocka_unit_test(test_damaged_files),
    };
    for (int i = 0; i < N * SIZE; i++) {
        floats[i] = (float)i / 61 - 0.3f;
        bytes[i] = (unsigned char)(i * 37);
    }
    folder_make(dir);
    folder_path(dir, "set.h5", path);
    const int failed = cmocka_run_group_tests_name("hdf5", tests, NULL, NULL);
    folder_remove(dir);
    return failed;
}
