/* run: serial */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "data_support.h"

#include <sys/stat.h>
#include <xxhash.h>

static char dir[256];

/* Three images of 2 x 3 pixels. */
enum { COUNT = 3, HEIGHT = 2, WIDTH = 3, SIZE = COUNT * HEIGHT * WIDTH };
enum { IMAGE_BYTES = 16 + SIZE, LABEL_BYTES = 8 + COUNT };
static const unsigned char good_images[IMAGE_BYTES] = {
    0, 0, 8, 3, 0,  0,  0,   COUNT, 0,   0,   0,   HEIGHT, 0, 0, 0, WIDTH, /* header */
    0, 1, 2, 3, 4,  5,                                                     /* image 0 */
    6, 7, 8, 9, 10, 11, 250, 251,   252, 253, 254, 255};
static const unsigned char good_labels[LABEL_BYTES] = {0, 0, 8, 1, 0, 0, 0, COUNT, 9, 0, 4};

static const char *const image_name[] = {"train-images-idx3-ubyte", "t10k-images-idx3-ubyte"};
static const char *const label_name[] = {"train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"};

static void put(bool test, const unsigned char *images, size_t image_bytes,
                const unsigned char *labels, size_t label_bytes) {
    folder_empty(dir);
    file_put(dir, image_name[test], images, image_bytes);
    file_put(dir, label_name[test], labels, label_bytes);
}

static void expect_good(bool test) {
    bcop_images images;
    const bcop_set_kind *kind = bcop_set_kinds[kind_index("mnist")];
    assert_int_equal(open_dir("mnist", dir, test, &images), BCOP_OK);
    assert_int_equal(images.count, COUNT);
    assert_int_equal(images.classes, 10);
    assert_true(bcop_shape_equal(images.shape, (bcop_shape){HEIGHT, WIDTH, 1}));
    for (int i = 0; i < COUNT; i++) {
        float x[HEIGHT * WIDTH];
        kind->read(&images, i, x);
        for (int p = 0; p < HEIGHT * WIDTH; p++)
            assert_true(x[p] == (float)good_images[16 + i * HEIGHT * WIDTH + p] / 255.0f);
        assert_int_equal(kind->label(&images, i), good_labels[8 + i]);
    }
    unsigned char joined[COUNT + SIZE];
    memcpy(joined, good_labels + 8, COUNT);
    memcpy(joined + COUNT, good_images + 16, SIZE);
    assert_true(images.fingerprint == XXH3_64bits(joined, sizeof joined));
    kind->close(&images);
}

/* The training files as they are now must be refused with all these words in the message. */
static void expect_refused(bcop_status code, const char *file, const char *a, const char *b) {
    bcop_images images;
    assert_int_equal(open_dir("mnist", dir, false, &images), code);
    const char *message = bcop_status_message();
    if (!strstr(message, file) || !strstr(message, a) || !strstr(message, b))
        fail_msg("'%s' lacks '%s', '%s' or '%s'", message, file, a, b);
}

static void test_plain_files(void **state) {
    (void)state;
    put(false, good_images, IMAGE_BYTES, good_labels, LABEL_BYTES);
    expect_good(false);
    put(true, good_images, IMAGE_BYTES, good_labels, LABEL_BYTES);
    expect_good(true);
}

static void test_gzip_equals_plain(void **state) {
    (void)state;
    folder_empty(dir);
    file_put_gz(dir, "train-images-idx3-ubyte.gz", good_images, IMAGE_BYTES);
    file_put_gz(dir, "train-labels-idx1-ubyte.gz", good_labels, LABEL_BYTES);
    expect_good(false);
    /* one plain, one packed in two members */
    folder_empty(dir);
    file_put_gz(dir, "train-images-idx3-ubyte.gz", good_images, 20);
    file_put_gz(dir, "train-images-idx3-ubyte.gz", good_images + 20, IMAGE_BYTES - 20);
    file_put(dir, "train-labels-idx1-ubyte", good_labels, LABEL_BYTES);
    expect_good(false);
}

static void test_missing_files(void **state) {
    (void)state;
    folder_empty(dir);
    expect_refused(BCOP_NO_INPUT, dir, "train-images-idx3-ubyte", ".gz");
    file_put(dir, image_name[0], good_images, IMAGE_BYTES);
    expect_refused(BCOP_NO_INPUT, dir, "train-labels-idx1-ubyte", ".gz");
    char path[512];
    folder_empty(dir);
    folder_path(dir, image_name[0], path);
    assert_int_equal(mkdir(path, 0700), 0);
    expect_refused(BCOP_BAD_DATA, image_name[0], "regular", "");
}

/* Every shorter and some longer lengths of both files. */
static void test_wrong_sizes(void **state) {
    (void)state;
    unsigned char longer[IMAGE_BYTES + 8] = {0};
    memcpy(longer, good_images, IMAGE_BYTES);
    for (size_t size = 0; size < sizeof longer; size++) {
        if (size == IMAGE_BYTES)
            continue;
        put(false, longer, size, good_labels, LABEL_BYTES);
        char is[32];
        snprintf(is, sizeof is, "has %zu", size);
        if (size >= 16)
            expect_refused(BCOP_BAD_DATA, image_name[0], "promises 34 bytes", is);
        else
            expect_refused(BCOP_BAD_DATA, image_name[0], "", "");
    }
    memcpy(longer, good_labels, LABEL_BYTES);
    for (size_t size = 0; size < LABEL_BYTES + 4; size++) {
        if (size == LABEL_BYTES)
            continue;
        put(false, good_images, IMAGE_BYTES, longer, size);
        expect_refused(BCOP_BAD_DATA, label_name[0], "",
                       size < 8             ? ""
                       : size < LABEL_BYTES ? "truncated"
                                            : "padded");
    }
}

static void test_wrong_headers(void **state) {
    (void)state;
    unsigned char images[IMAGE_BYTES], labels[LABEL_BYTES];
    memcpy(images, good_images, IMAGE_BYTES);
    for (int b = 0; b < 16; b++) { /* any other byte of the header is an error */
        images[b] ^= 0x81;
        put(false, images, IMAGE_BYTES, good_labels, LABEL_BYTES);
        expect_refused(BCOP_BAD_DATA, image_name[0], b < 4 ? "0x00000803" : "", "");
        images[b] ^= 0x81;
    }
    put(false, good_labels, LABEL_BYTES, good_labels, LABEL_BYTES);
    expect_refused(BCOP_BAD_DATA, image_name[0], "", "");
    /* 2^32 - 1 images of 65535 x 65535: the product does not fit 64 bits */
    memset(images + 4, 0xff, 4);
    memcpy(images + 8, (unsigned char[]){0, 0, 0xff, 0xff, 0, 0, 0xff, 0xff}, 8);
    put(false, images, IMAGE_BYTES, good_labels, LABEL_BYTES);
    expect_refused(BCOP_BAD_DATA, image_name[0], "65535", "4096");
    memcpy(labels, good_labels, LABEL_BYTES);
    labels[7] = COUNT - 1;
    put(false, good_images, IMAGE_BYTES, labels, LABEL_BYTES - 1);
    expect_refused(BCOP_BAD_DATA, image_name[0], "3 images", "2 labels");
    const unsigned char none[16] = {0, 0, 8, 3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1};
    put(false, none, 16, good_labels, LABEL_BYTES);
    expect_refused(BCOP_BAD_DATA, image_name[0], "dimension 0 is 0", "");
}

static void test_wrong_label(void **state) {
    (void)state;
    unsigned char labels[LABEL_BYTES];
    memcpy(labels, good_labels, LABEL_BYTES);
    labels[8 + 1] = 10;
    put(false, good_images, IMAGE_BYTES, labels, LABEL_BYTES);
    expect_refused(BCOP_BAD_DATA, label_name[0], "label 1 is 10", "");
}

static void test_damaged_gzip(void **state) {
    (void)state;
    folder_empty(dir);
    file_put_gz(dir, "train-images-idx3-ubyte.gz", good_images, IMAGE_BYTES);
    file_put(dir, label_name[0], good_labels, LABEL_BYTES);
    size_t size;
    unsigned char *packed = file_get(dir, "train-images-idx3-ubyte.gz", &size);
    for (size_t cut = 0; cut < size; cut++) {
        file_put(dir, "train-images-idx3-ubyte.gz", packed, cut);
        expect_refused(BCOP_BAD_DATA, "train-images-idx3-ubyte.gz", "",
                       cut == 0 ? "empty" : "cut short");
    }
    for (size_t b = 10; b < size; b++) { /* bytes 3 to 9 are flags, time and system */
        packed[b] ^= 0x55;
        file_put(dir, "train-images-idx3-ubyte.gz", packed, size);
        expect_refused(BCOP_BAD_DATA, "train-images-idx3-ubyte", "", "");
        packed[b] ^= 0x55;
    }
    packed[size] = 'x'; /* file_get leaves room for one byte */
    file_put(dir, "train-images-idx3-ubyte.gz", packed, size + 1);
    expect_refused(BCOP_BAD_DATA, "train-images-idx3-ubyte.gz", "cut short", "");
    file_put(dir, "train-images-idx3-ubyte.gz", good_images, IMAGE_BYTES);
    expect_refused(BCOP_BAD_DATA, "train-images-idx3-ubyte.gz", "damaged", "");
    free(packed);
}

/* A packed file of more than one buffer of the unpacker, read back value by value. */
static void test_large_gzip(void **state) {
    (void)state;
    enum { N = 5, SIDE = 1000, BYTES = N * SIDE * SIDE };
    unsigned char *images = calloc(1, 16 + BYTES);
    NEED(images);
    memcpy(images, (unsigned char[]){0, 0, 8, 3, 0, 0, 0, N, 0, 0, 3, 0xe8, 0, 0, 3, 0xe8}, 16);
    for (long i = 0; i < BYTES; i++)
        images[16 + i] = (unsigned char)(i * 2654435761u >> 23);
    const unsigned char labels[8 + N] = {0, 0, 8, 1, 0, 0, 0, N};
    folder_empty(dir);
    file_put_gz(dir, "t10k-images-idx3-ubyte.gz", images, 16 + BYTES);
    file_put_gz(dir, "t10k-labels-idx1-ubyte.gz", labels, sizeof labels);
    bcop_images set;
    const bcop_set_kind *kind = bcop_set_kinds[kind_index("mnist")];
    assert_int_equal(open_dir("mnist", dir, true, &set), BCOP_OK);
    float *x = malloc(sizeof(float) * SIDE * SIDE);
    NEED(x);
    for (long i = 0; i < N; i++) {
        kind->read(&set, i, x);
        for (long p = 0; p < SIDE * SIDE; p++)
            if (x[p] != (float)images[16 + i * SIDE * SIDE + p] / 255.0f)
                fail_msg("image %ld pixel %ld", i, p);
    }
    kind->close(&set);
    free(x);
    free(images);
}

/* The published set, where it is installed: 60,000 and 10,000 images, 6,000 and 1,000 of each
 * class, mean pixel 0.2860 (the usual constant of that set). */
static void test_fashion_mnist(void **state) {
    (void)state;
    const char *folder = "/usr/share/datasets/fashion-mnist";
    if (access(folder, R_OK))
        skip();
    const bcop_set_kind *kind = bcop_set_kinds[kind_index("mnist")];
    for (int test = 0; test < 2; test++) {
        const long count = test ? 10000 : 60000;
        bcop_images images;
        assert_int_equal(open_dir("mnist", folder, test, &images), BCOP_OK);
        assert_int_equal(images.count, count);
        assert_true(bcop_shape_equal(images.shape, (bcop_shape){28, 28, 1}));
        long of_class[10] = {0};
        double sum = 0;
        for (long i = 0; i < count; i++) {
            float x[28 * 28];
            kind->read(&images, i, x);
            of_class[kind->label(&images, i)]++;
            for (int p = 0; p < 28 * 28; p++)
                sum += (double)x[p];
        }
        for (int c = 0; c < 10; c++)
            assert_int_equal(of_class[c], count / 10);
        if (!test)
            assert_true(sum / (double)(count * 28 * 28) > 0.28595 &&
                        sum / (double)(count * 28 * 28) < 0.28605);
        kind->close(&images);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain_files),   cmocka_unit_test(test_gzip_equals_plain),
        cmocka_unit_test(test_missing_files), cmocka_unit_test(test_wrong_sizes),
        cmocka_unit_test(test_wrong_headers), cmocka_unit_test(test_wrong_label),
        cmocka_unit_test(test_damaged_gzip),  cmocka_unit_test(test_large_gzip),
        cmocka_unit_test(test_fashion_mnist),
    };
    folder_make(dir);
    const int failed = cmocka_run_group_tests_name("mnist", tests, NULL, NULL);
    folder_remove(dir);
    return failed;
}
