/* run: serial */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "data_support.h"

#include <xxhash.h>

enum { RECORD = 3073, PLANE = 1024 };

static char dir[256];

/* Value of a colour plane of an example of the whole set; no two neighbours are equal. */
static unsigned char value(long example, int channel, int y, int x) {
    return (unsigned char)(example * 31 + channel * 101 + y * 7 + x * 3);
}

static int label(long example) {
    return (int)(example * 3 % 10);
}

/* `count` records whose first is example `first` of the set. */
static void put(const char *name, long first, int count, int extra_bytes) {
    unsigned char *data = calloc((size_t)count + 1, RECORD);
    NEED(data);
    for (int i = 0; i < count; i++) {
        unsigned char *record = data + (long)i * RECORD;
        record[0] = (unsigned char)label(first + i);
        for (int c = 0; c < 3; c++)
            for (int y = 0; y < 32; y++)
                for (int x = 0; x < 32; x++)
                    record[1 + c * PLANE + y * 32 + x] = value(first + i, c, y, x);
    }
    file_put(dir, name, data, (size_t)(count * RECORD + extra_bytes));
    free(data);
}

/* Files of 1, 2, 3, 4, 5 records. */
static void put_training(void) {
    long first = 0;
    folder_empty(dir);
    for (int f = 1; f <= 5; f++) {
        char name[32];
        snprintf(name, sizeof name, "data_batch_%d.bin", f);
        put(name, first, f, 0);
        first += f;
    }
}

static void expect_set(bool test, long count) {
    const bcop_set_kind *kind = bcop_set_kinds[kind_index("cifar10")];
    bcop_images images;
    assert_int_equal(open_dir("cifar10", dir, test, &images), BCOP_OK);
    assert_int_equal(images.count, count);
    assert_int_equal(images.classes, 10);
    assert_true(bcop_shape_equal(images.shape, (bcop_shape){32, 32, 3}));
    unsigned char *joined = malloc((size_t)count * RECORD), *next = joined + count;
    NEED(joined);
    for (long i = 0; i < count; i++) {
        float pixels[32][32][3];
        kind->read(&images, i, &pixels[0][0][0]);
        assert_int_equal(kind->label(&images, i), label(i));
        joined[i] = (unsigned char)label(i);
        for (int c = 0; c < 3; c++)
            for (int y = 0; y < 32; y++)
                for (int x = 0; x < 32; x++) {
                    assert_true(pixels[y][x][c] == (float)value(i, c, y, x) / 255.0f);
                    *next++ = value(i, c, y, x);
                }
    }
    assert_true(images.fingerprint == XXH3_64bits(joined, (size_t)count * RECORD));
    free(joined);
    kind->close(&images);
}

static void expect_refused(bool test, bcop_status code, const char *file, const char *text) {
    bcop_images images;
    assert_int_equal(open_dir("cifar10", dir, test, &images), code);
    const char *message = bcop_status_message();
    if (!strstr(message, file) || !strstr(message, text))
        fail_msg("'%s' lacks '%s' or '%s'", message, file, text);
}

static void test_files_in_order(void **state) {
    (void)state;
    put_training();
    expect_set(false, 15);
    put("test_batch.bin", 0, 7, 0);
    expect_set(true, 7);
}

static void test_missing_files(void **state) {
    (void)state;
    for (int f = 1; f <= 5; f++) {
        char path[512], name[32];
        put_training();
        snprintf(name, sizeof name, "data_batch_%d.bin", f);
        folder_path(dir, name, path);
        NEED(remove(path) == 0);
        expect_refused(false, BCOP_NO_INPUT, path, "");
    }
    expect_refused(true, BCOP_NO_INPUT, dir, "test_batch.bin");
}

static void test_wrong_sizes(void **state) {
    (void)state;
    put_training();
    put("data_batch_3.bin", 3, 3, -1);
    expect_refused(false, BCOP_BAD_DATA, "data_batch_3.bin", "9218 bytes");
    put("data_batch_3.bin", 3, 3, 1);
    expect_refused(false, BCOP_BAD_DATA, "data_batch_3.bin", "9220 bytes");
    put("data_batch_3.bin", 3, 3, -3 * RECORD + 1);
    expect_refused(false, BCOP_BAD_DATA, "data_batch_3.bin", "1 bytes");
    put("data_batch_3.bin", 3, 0, 0);
    expect_refused(false, BCOP_BAD_DATA, "data_batch_3.bin", "empty");
    put("data_batch_3.bin", 3, 3, 0);
    expect_set(false, 15);
}

static void test_wrong_label(void **state) {
    (void)state;
    put_training();
    size_t size;
    unsigned char *data = file_get(dir, "data_batch_4.bin", &size);
    data[2 * RECORD] = 10;
    file_put(dir, "data_batch_4.bin", data, size);
    expect_refused(false, BCOP_BAD_DATA, "data_batch_4.bin", "label 2 is 10");
    free(data);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files_in_order),
        cmocka_unit_test(test_missing_files),
        cmocka_unit_test(test_wrong_sizes),
        cmocka_unit_test(test_wrong_label),
    };
    folder_make(dir);
    const int failed = cmocka_run_group_tests_name("cifar10", tests, NULL, NULL);
    folder_remove(dir);
    return failed;
}
