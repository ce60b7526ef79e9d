/* run: serial */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "data_support.h"

enum { COUNT = 40, SIZE = 2 * 3 * 1 };
static const bcop_shape shape = {2, 3, 1};

static bcop_status open_split(long holdout, bcop_split split, bcop_dataset **dataset) {
    void *kind = synthetic_make(3, shape, COUNT, 4, 0.1);
    const bcop_dataset_options options = {.kind = kind_index("synthetic"), .holdout = holdout};
    const bcop_status status = bcop_dataset_open(&options, kind, split, dataset);
    memset(kind, 0xff, bcop_set_kinds[options.kind]->options_size); /* it was copied */
    free(kind);
    return status;
}

/* The split's examples are `count` of the kind's, from `first` on. */
static void expect_examples(long holdout, bcop_split split, long first, long count) {
    bcop_dataset *dataset;
    assert_int_equal(open_split(holdout, split, &dataset), BCOP_OK);
    assert_int_equal(bcop_dataset_count(dataset), count);
    assert_int_equal(bcop_dataset_classes(dataset), 3);
    assert_true(bcop_shape_equal(bcop_dataset_shape(dataset), shape));
    const bcop_set_kind *kind = bcop_set_kinds[kind_index("synthetic")];
    void *options = synthetic_make(3, shape, COUNT, 4, 0.1);
    bcop_images images;
    assert_int_equal(kind->open(options, split == BCOP_SPLIT_TEST, &images), BCOP_OK);
    for (long i = 0; i < count; i++) {
        float a[SIZE], b[SIZE];
        bcop_dataset_read(dataset, i, a);
        kind->read(&images, first + i, b);
        assert_memory_equal(a, b, sizeof a);
        assert_int_equal(bcop_dataset_label(dataset, i), kind->label(&images, first + i));
    }
    assert_true(bcop_dataset_fingerprint(dataset) == images.fingerprint);
    kind->close(&images);
    free(options);
    bcop_dataset_close(dataset);
}

static void test_splits(void **state) {
    (void)state;
    const long holdouts[] = {0, 1, 7, COUNT - 1};
    for (int h = 0; h < 4; h++) {
        const long held = holdouts[h];
        expect_examples(held, BCOP_SPLIT_TRAIN, 0, COUNT - held);
        expect_examples(held, BCOP_SPLIT_HOLDOUT, COUNT - held, held);
        expect_examples(held, BCOP_SPLIT_TEST, 0, COUNT / 2);
    }
}

static void test_nothing_left(void **state) {
    (void)state;
    for (long held = COUNT; held <= COUNT + 1; held++) {
        bcop_dataset *dataset;
        assert_int_equal(open_split(held, BCOP_SPLIT_TRAIN, &dataset), BCOP_CONFIG);
        assert_null(dataset);
        assert_non_null(strstr(bcop_status_message(), "data.holdout"));
        assert_int_equal(open_split(held, BCOP_SPLIT_HOLDOUT, &dataset), BCOP_CONFIG);
        assert_int_equal(open_split(held, BCOP_SPLIT_TEST, &dataset), BCOP_OK);
        bcop_dataset_close(dataset);
    }
    bcop_dataset_close(NULL);
}

static void test_errors_of_the_kind(void **state) {
    (void)state;
    void *kind = kind_options("mnist");
    kind_set_text("mnist", kind, "dir", "no/such/folder");
    const bcop_dataset_options options = {.kind = kind_index("mnist")};
    bcop_dataset *dataset;
    assert_int_equal(bcop_dataset_open(&options, kind, BCOP_SPLIT_TEST, &dataset), BCOP_NO_INPUT);
    assert_null(dataset);
    assert_non_null(strstr(bcop_status_message(), "no/such/folder"));
    free(kind);
}

static void test_split_names(void **state) {
    (void)state;
    static const char *const names[] = {"train", "holdout", "test"};
    for (int s = 0; s < 3; s++) {
        bcop_split split;
        assert_string_equal(bcop_dataset_split_name((bcop_split)s), names[s]);
        assert_int_equal(bcop_dataset_split_parse(names[s], &split), BCOP_OK);
        assert_int_equal(split, s);
    }
    bcop_split split;
    assert_int_equal(bcop_dataset_split_parse("Test", &split), BCOP_USAGE);
    assert_int_equal(bcop_dataset_split_parse("", &split), BCOP_USAGE);
}

/* Every kind is complete, every key documented, and the augment choices are in the rules' order. */
static void test_tables(void **state) {
    (void)state;
    for (int k = 0; bcop_set_kinds[k]; k++) {
        const bcop_set_kind *kind = bcop_set_kinds[k];
        assert_true(kind->name && kind->help && kind->open && kind->read && kind->label &&
                    kind->close);
        for (const bcop_option *o = kind->options; o->key; o++) {
            assert_non_null(o->help);
            assert_true(o->offset < kind->options_size);
            for (const bcop_option *shared = bcop_dataset_table; shared->key; shared++)
                assert_string_not_equal(o->key, shared->key);
        }
    }
    for (const bcop_option *o = bcop_dataset_table; o->key; o++)
        if (strcmp(o->key, "augment") == 0)
            assert_string_equal(o->choices, "none|flip|crop|crop_flip");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_splits),
        cmocka_unit_test(test_nothing_left),
        cmocka_unit_test(test_errors_of_the_kind),
        cmocka_unit_test(test_split_names),
        cmocka_unit_test(test_tables),
    };
    return cmocka_run_group_tests_name("dataset", tests, NULL, NULL);
}
