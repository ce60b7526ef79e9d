/* run: serial */
#include "train/schedule.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void close_to(double got, double wanted) {
    if (!(fabs(got - wanted) <= 1e-13))
        fail_msg("%.17g, expected %.17g", got, wanted);
}

static void check_constant(void **state) {
    (void)state;
    const bcop_schedule s = {.kind = BCOP_SCHEDULE_CONSTANT, .final = 0.01, .peak = 0.5};
    for (long step = 0; step < 50; step++)
        assert_true(bcop_schedule_factor(&s, step, 50, 10) == 1);
}

/* Geometric: the first factor is half a step's ratio below 1, the last half a step above final. */
static void check_exponential(void **state) {
    (void)state;
    const bcop_schedule s = {.kind = BCOP_SCHEDULE_EXPONENTIAL, .final = 1e-4};
    const long total = 80;
    const double ratio = exp(log(1e-4) / 80);
    double wanted = sqrt(ratio);
    for (long step = 0; step < total; step++, wanted *= ratio)
        close_to(bcop_schedule_factor(&s, step, total, 20), wanted);
    close_to(bcop_schedule_factor(&s, total - 1, total, 20), 1e-4 / sqrt(ratio));
    /* half-way the geometric mean */
    const double before = bcop_schedule_factor(&s, 39, total, 20);
    const double after = bcop_schedule_factor(&s, 40, total, 20);
    close_to(sqrt(before * after), 1e-2);
}

/* cos^2(pi p / 2) between 1 and final. */
static void check_cosine(void **state) {
    (void)state;
    const double last = 0.05, quarter = acos(0.0) / 2; /* pi / 4 */
    const bcop_schedule s = {.kind = BCOP_SCHEDULE_COSINE, .final = last};
    for (long step = 0; step < 101; step++) {
        const double c = cos(quarter * (2 * (double)step + 1) / 101);
        close_to(bcop_schedule_factor(&s, step, 101, 7), last + (1 - last) * c * c);
    }
    close_to(bcop_schedule_factor(&s, 50, 101, 7), (1 + last) / 2); /* p = 1/2 */
    close_to(bcop_schedule_factor(&s, 0, 1, 1), (1 + last) / 2);    /* a run of one step */
}

/* Every step below the one before; from near 1 to near final. */
static void check_falling(void **state) {
    (void)state;
    for (int kind = BCOP_SCHEDULE_EXPONENTIAL; kind <= BCOP_SCHEDULE_COSINE; kind++) {
        const bcop_schedule s = {.kind = kind, .final = 1e-3};
        double before = 1;
        for (long step = 0; step < 10000; step++) {
            const double now = bcop_schedule_factor(&s, step, 10000, 100);
            assert_true(now < before && now > s.final);
            before = now;
        }
        assert_true(bcop_schedule_factor(&s, 0, 10000, 100) > 0.999);
        assert_true(before < 1.001e-3);
    }
}

static void check_one_cycle(void **state) {
    (void)state;
    /* p = peak is the middle of step 30 of 101: (30 + 1/2) / 101 */
    const bcop_schedule s = {.kind = BCOP_SCHEDULE_ONE_CYCLE,
                             .warmup = 5, /* not for this kind */
                             .final = 0.01,
                             .peak = 30.5 / 101,
                             .start = 0.2};
    const double half = acos(0.0); /* pi / 2 */
    for (long step = 0; step < 101; step++) {
        const double at = (double)step + 0.5;
        const double rise = sin(half * at / 30.5), fall = cos(half * (at - 30.5) / 70.5);
        close_to(bcop_schedule_factor(&s, step, 101, 10),
                 at <= 30.5 ? 0.2 + 0.8 * rise * rise : 0.01 + 0.99 * fall * fall);
    }
    close_to(bcop_schedule_factor(&s, 30, 101, 10), 1);
    for (long step = 1; step < 101; step++) {
        const double change =
            bcop_schedule_factor(&s, step, 101, 10) - bcop_schedule_factor(&s, step - 1, 101, 10);
        assert_true(step <= 30 ? change > 0 : change < 0);
    }
    assert_true(bcop_schedule_factor(&s, 0, 1 << 20, 10) < 0.2 + 1e-9);
    assert_true(bcop_schedule_factor(&s, (1 << 20) - 1, 1 << 20, 10) < 0.01 + 1e-9);
}

/* A straight line that reaches 1 at the last update of the warm-up, whatever the kind. */
static void check_warmup(void **state) {
    (void)state;
    for (int kind = BCOP_SCHEDULE_CONSTANT; kind <= BCOP_SCHEDULE_COSINE; kind++) {
        const bcop_schedule plain = {.kind = kind, .final = 0.1};
        bcop_schedule warm = plain;
        warm.warmup = 1.5; /* 12 steps of 8 an epoch */
        for (long step = 0; step < 40; step++) {
            const double rise = step < 12 ? (double)(step + 1) / 12 : 1;
            close_to(bcop_schedule_factor(&warm, step, 40, 8),
                     rise * bcop_schedule_factor(&plain, step, 40, 8));
        }
        assert_true(bcop_schedule_factor(&warm, 11, 40, 8) ==
                    bcop_schedule_factor(&plain, 11, 40, 8));
        warm.warmup = 0.05; /* less than a step: none */
        assert_true(bcop_schedule_factor(&warm, 0, 40, 8) ==
                    bcop_schedule_factor(&plain, 0, 40, 8));
        warm.warmup = 100; /* longer than the run */
        close_to(bcop_schedule_factor(&warm, 39, 40, 8),
                 0.05 * bcop_schedule_factor(&plain, 39, 40, 8));
    }
}

/* Where a run stops does not move its schedule: the factor depends on step, total and epoch. */
static void check_range(void **state) {
    (void)state;
    for (int kind = BCOP_SCHEDULE_CONSTANT; kind <= BCOP_SCHEDULE_ONE_CYCLE; kind++) {
        const bcop_schedule s = {
            .kind = kind, .warmup = 0.5, .final = 1e-9, .peak = 0.01, .start = 1};
        for (long total = 1; total < 200; total += 7)
            for (long step = 0; step < total; step++) {
                const double f = bcop_schedule_factor(&s, step, total, 3);
                assert_true(f > 0 && f <= 1);
            }
        const double late = bcop_schedule_factor(&s, 4000000000L, 5000000000L, 1000000L);
        assert_true(late > 0 && late <= 1); /* steps beyond 32 bits */
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_constant),  cmocka_unit_test(check_exponential),
        cmocka_unit_test(check_cosine),    cmocka_unit_test(check_falling),
        cmocka_unit_test(check_one_cycle), cmocka_unit_test(check_warmup),
        cmocka_unit_test(check_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
