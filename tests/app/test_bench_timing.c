/* run: ranks 1 2 3 */
/* How the benchmarks measure: in turn, on the ranks that take part, until time or rounds are up;
 * a failure of one rank is everyone's. */
#include "app/bench_timing.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static bcop_comm comm;
static char story[512];

typedef struct actor {
    char name;
    long nanoseconds;
    int fails_on; /* the rank that fails; -1: none */
} actor;

static void tell(char what) {
    const size_t used = strlen(story);
    if (used + 1 < sizeof story)
        story[used] = what;
}

static void prepare(void *of) {
    (void)of;
    tell('-');
}

static bcop_status act(void *of) {
    const actor *a = of;
    tell(a->name);
    const struct timespec pause = {.tv_nsec = a->nanoseconds};
    nanosleep(&pause, NULL);
    if (a->fails_on == comm.rank)
        return bcop_status_fail(BCOP_DIVERGED, "%c failed", a->name);
    return BCOP_OK;
}

static void items_run_in_turn_where_they_belong(void **state) {
    (void)state;
    actor a = {'a', 0, -1}, b = {'b', 3000000, -1};
    bcop_bench_item item[] = {{.prepare = prepare, .run = act, .of = &a, .alone = true},
                              {.run = act, .of = &b}};
    memset(story, 0, sizeof story);
    const bcop_bench_rounds rule = {.least = 3, .seconds = 0, .limit = 60, .warm = true};
    assert_int_equal(bcop_bench_timing_run(&comm, rule, 2, item), BCOP_OK);
    assert_string_equal(story, comm.rank == 0 ? "-ab-ab-ab-ab" : "bbbb");
    assert_true(item[0].seconds > 0 && item[1].seconds >= 0.003);
    assert_true(item[1].without > 0.5 && item[1].without <= 1); /* asleep is without a core */
}

static void time_and_rounds_end_it(void **state) {
    (void)state;
    actor a = {'a', 2000000, -1};
    bcop_bench_item item = {.run = act, .of = &a};
    memset(story, 0, sizeof story);
    assert_int_equal(
        bcop_bench_timing_run(&comm, (bcop_bench_rounds){.least = 5, .limit = 0}, 1, &item),
        BCOP_OK);
    assert_string_equal(story, "a"); /* beyond the limit at once, but never nothing */
    memset(story, 0, sizeof story);
    a.nanoseconds = 0;
    assert_int_equal(
        bcop_bench_timing_run(&comm, (bcop_bench_rounds){.seconds = 60, .limit = 60}, 1, &item),
        BCOP_OK);
    assert_int_equal(strlen(story), BCOP_BENCH_ROUNDS_MAX);
}

static void a_failure_is_everyones(void **state) {
    (void)state;
    actor a = {'a', 0, comm.size - 1}, b = {'b', 0, -1};
    bcop_bench_item item[] = {{.run = act, .of = &a}, {.run = act, .of = &b}};
    memset(story, 0, sizeof story);
    assert_int_equal(
        bcop_bench_timing_run(&comm, (bcop_bench_rounds){.least = 2, .limit = 9}, 2, item),
        BCOP_DIVERGED);
    assert_string_equal(bcop_status_message(), "a failed");
    assert_string_equal(story, "a");
}

static void medians(void **state) {
    (void)state;
    assert_true(bcop_bench_timing_median(1, (double[]){7}) == 7);
    assert_true(bcop_bench_timing_median(3, (double[]){9, 1, 2}) == 2);
    assert_true(bcop_bench_timing_median(4, (double[]){9, 1, 2, 4}) == 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(items_run_in_turn_where_they_belong),
        cmocka_unit_test(time_and_rounds_end_it),
        cmocka_unit_test(a_failure_is_everyones),
        cmocka_unit_test(medians),
    };
    if (bcop_comm_open(&comm) != BCOP_OK)
        return 1;
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    bcop_comm_close(&comm);
    return failed;
}
