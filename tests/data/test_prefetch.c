/* run: serial */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "data/prefetch.h"
#include "data/sampler.h"
#include "data_support.h"

#include <signal.h>
#include <time.h>

/* 26 examples in batches of 8: 3 steps per epoch, 2 examples left over. */
enum { COUNT = 26, BATCH = 8, STEPS = 3, SIZE = 5 * 4 * 2, PADDING = 2 };
static const bcop_shape shape = {5, 4, 2};
static const uint64_t seed = 77;
static bcop_dataset *dataset;

static bcop_prefetch_plan plan_make(bcop_augment_rule rule) {
    return (bcop_prefetch_plan){.dataset = dataset,
                                .augment = rule,
                                .crop_padding = PADDING,
                                .seed = seed,
                                .batch = BATCH,
                                .rows = BATCH};
}

/* Rows first .. first + rows - 1 of the global batch of `step`, put together without the prefetch.
 */
static void expect_batch(const bcop_batch *batch, bcop_augment_rule rule, long step, long first,
                         long rows) {
    const long epoch = step / STEPS;
    int32_t order[COUNT];
    bcop_sampler_order(seed, (uint32_t)epoch, COUNT, order);
    assert_int_equal(batch->step, step);
    assert_int_equal(batch->epoch, epoch);
    for (long r = 0; r < rows; r++) {
        const long example = order[step % STEPS * BATCH + first + r];
        float x[SIZE], changed[SIZE];
        bcop_dataset_read(dataset, example, x);
        bcop_augment_apply(rule, PADDING, shape, seed, (uint32_t)epoch, example, x, changed);
        assert_int_equal(batch->example[r], example);
        assert_int_equal(batch->label[r], bcop_dataset_label(dataset, example));
        assert_memory_equal(batch->x + r * SIZE, changed, sizeof changed);
    }
}

static void test_batches(void **state) {
    (void)state;
    for (int rule = BCOP_AUGMENT_NONE; rule <= BCOP_AUGMENT_CROP_FLIP; rule++) {
        const bcop_prefetch_plan plan = plan_make((bcop_augment_rule)rule);
        bcop_prefetch *prefetch;
        assert_int_equal(bcop_prefetch_open(&plan, &prefetch), BCOP_OK);
        for (long step = 0; step < 5 * STEPS; step++) {
            bcop_batch batch;
            bcop_prefetch_next(prefetch, &batch);
            expect_batch(&batch, plan.augment, step, 0, BATCH);
        }
        bcop_prefetch_close(prefetch);
    }
}

/* An epoch shows STEPS * BATCH different examples. */
static void test_no_example_twice(void **state) {
    (void)state;
    const bcop_prefetch_plan plan = plan_make(BCOP_AUGMENT_NONE);
    bcop_prefetch *prefetch;
    assert_int_equal(bcop_prefetch_open(&plan, &prefetch), BCOP_OK);
    for (int epoch = 0; epoch < 4; epoch++) {
        int seen[COUNT] = {0};
        for (int step = 0; step < STEPS; step++) {
            bcop_batch batch;
            bcop_prefetch_next(prefetch, &batch);
            for (int r = 0; r < BATCH; r++)
                assert_int_equal(seen[batch.example[r]]++, 0);
        }
    }
    bcop_prefetch_close(prefetch);
}

/* The rows of 1 to 4 ranks, side by side, are the rows of one. */
static void test_ranks(void **state) {
    (void)state;
    for (int ranks = 1; ranks <= 4; ranks++)
        for (int rank = 0; rank < ranks; rank++) {
            bcop_prefetch_plan plan = plan_make(BCOP_AUGMENT_CROP_FLIP);
            plan.first_row = BATCH * rank / ranks;
            plan.rows = BATCH * (rank + 1) / ranks - plan.first_row;
            bcop_prefetch *prefetch;
            assert_int_equal(bcop_prefetch_open(&plan, &prefetch), BCOP_OK);
            for (long step = 0; step < 2 * STEPS; step++) {
                bcop_batch batch;
                bcop_prefetch_next(prefetch, &batch);
                expect_batch(&batch, plan.augment, step, plan.first_row, plan.rows);
            }
            bcop_prefetch_close(prefetch);
        }
}

static void test_any_first_step(void **state) {
    (void)state;
    for (long first = 0; first < 4 * STEPS; first++) {
        bcop_prefetch_plan plan = plan_make(BCOP_AUGMENT_CROP);
        plan.first_step = first;
        bcop_prefetch *prefetch;
        assert_int_equal(bcop_prefetch_open(&plan, &prefetch), BCOP_OK);
        for (long step = first; step < first + STEPS; step++) {
            bcop_batch batch;
            bcop_prefetch_next(prefetch, &batch);
            expect_batch(&batch, plan.augment, step, 0, BATCH);
        }
        bcop_prefetch_close(prefetch);
    }
}

static void pause_briefly(void) {
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
}

/* A batch stays as it was given out while the thread works on the next. */
static void test_batch_stays_valid(void **state) {
    (void)state;
    const bcop_prefetch_plan plan = plan_make(BCOP_AUGMENT_CROP_FLIP);
    bcop_prefetch *prefetch;
    assert_int_equal(bcop_prefetch_open(&plan, &prefetch), BCOP_OK);
    for (long step = 0; step < 4; step++) {
        bcop_batch batch;
        bcop_prefetch_next(prefetch, &batch);
        pause_briefly();
        expect_batch(&batch, plan.augment, step, 0, BATCH);
    }
    bcop_prefetch_close(prefetch);
}

static void test_open_and_close(void **state) {
    (void)state;
    bcop_prefetch_plan plan = plan_make(BCOP_AUGMENT_NONE);
    for (int i = 0; i < 100; i++) { /* at all moments of the first filling */
        bcop_prefetch *prefetch;
        assert_int_equal(bcop_prefetch_open(&plan, &prefetch), BCOP_OK);
        bcop_prefetch_close(prefetch);
    }
    bcop_prefetch_close(NULL);
    bcop_prefetch *prefetch;
    plan.batch = COUNT + 1;
    assert_int_equal(bcop_prefetch_open(&plan, &prefetch), BCOP_CONFIG);
    assert_null(prefetch);
    assert_non_null(strstr(bcop_status_message(), "train.batch"));
    plan.batch = plan.rows = COUNT;
    assert_int_equal(bcop_prefetch_open(&plan, &prefetch), BCOP_OK);
    bcop_batch batch;
    bcop_prefetch_next(prefetch, &batch);
    bcop_prefetch_next(prefetch, &batch);
    assert_int_equal(batch.epoch, 1);
    bcop_prefetch_close(prefetch);
}

static volatile sig_atomic_t handled;

static void handle(int number) {
    (void)number;
    handled = 1;
}

/* While the main thread blocks a signal, a signal to the process waits for it: the prefetch thread
 * does not take it. */
static void test_signals_wait_for_the_main_thread(void **state) {
    (void)state;
    const struct sigaction action = {.sa_handler = handle};
    sigset_t user, kept, pending, after;
    const bcop_prefetch_plan plan = plan_make(BCOP_AUGMENT_NONE);
    bcop_prefetch *prefetch;
    NEED(sigaction(SIGUSR1, &action, NULL) == 0);
    assert_int_equal(bcop_prefetch_open(&plan, &prefetch), BCOP_OK);
    sigemptyset(&user);
    sigaddset(&user, SIGUSR1);
    NEED(sigprocmask(SIG_BLOCK, &user, &kept) == 0);
    assert_false(sigismember(&kept, SIGUSR1)); /* opening leaves this thread's mask alone */
    NEED(kill(getpid(), SIGUSR1) == 0);
    pause_briefly();
    assert_int_equal(handled, 0);
    NEED(sigpending(&pending) == 0);
    assert_true(sigismember(&pending, SIGUSR1));
    NEED(sigprocmask(SIG_SETMASK, &kept, &after) == 0);
    assert_int_equal(handled, 1);
    bcop_prefetch_close(prefetch);
}

static int setup(void **state) {
    (void)state;
    void *kind = synthetic_make(3, shape, COUNT, 4, 0.1);
    const bcop_dataset_options options = {.kind = kind_index("synthetic")};
    const bcop_status status = bcop_dataset_open(&options, kind, BCOP_SPLIT_TRAIN, &dataset);
    free(kind);
    return status == BCOP_OK ? 0 : -1;
}

static int teardown(void **state) {
    (void)state;
    bcop_dataset_close(dataset);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_batches),
        cmocka_unit_test(test_no_example_twice),
        cmocka_unit_test(test_ranks),
        cmocka_unit_test(test_any_first_step),
        cmocka_unit_test(test_batch_stays_valid),
        cmocka_unit_test(test_open_and_close),
        cmocka_unit_test(test_signals_wait_for_the_main_thread),
    };
    return cmocka_run_group_tests_name("prefetch", tests, setup, teardown);
}
