/* run: serial */
/* The machine's numbers as they are typed, and the time of blocks alone against formulas by hand.
 */
#include "train/plan.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { N = 64, ITERATIONS = 1 };

static const bcop_machine MACHINE = {.gemm_gflops = 20,
                                     .ortho_gflops = 30,
                                     .copy_gbs = 7,
                                     .latency_us = 3,
                                     .bandwidth_gbs = 2,
                                     .overlap = 1};
static const double LATENCY = 3e-6, BANDWIDTH = 2e9, COPY = 7e9, ORTHO = 30e9;
static const double FLOATS = (double)N * N, CUBE = (double)N * N * N;

static void test_keys(void **state) {
    (void)state;
    bcop_machine m = bcop_machine_default();
    for (const bcop_machine_key *k = bcop_machine_keys; k->name; k++)
        assert_true(bcop_machine_value(&m, k) == k->fallback);
    assert_int_equal(bcop_machine_read("latency_us=1/2,gemm_gflops=90,overlap=0", &m), BCOP_OK);
    assert_true(m.latency_us == 0.5 && m.gemm_gflops == 90 && m.overlap == 0);
    assert_true(m.copy_gbs == bcop_machine_default().copy_gbs);
    static const char *const wrong[][2] = {
        {"", "key=value"},          {"copy_gbs", "key=value"},  {"copy_gbs=1,", "key=value"},
        {"copy_gbs=0", "above 0"},  {"copy_gbs=nan", "nan"},    {"copy_gbs=1x", "1x"},
        {"copy_gb=3", "copy_gbs'"}, {"overlap=2", "at most 1"}, {"overlap=-1", "from 0"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(bcop_machine_read(wrong[i][0], &m), BCOP_USAGE);
        assert_non_null(strstr(bcop_status_message(), wrong[i][1]));
    }
}

static void test_rates(void **state) {
    (void)state;
    assert_true(fabs(bcop_machine_multiply(&MACHINE, 40e9) - 2) < 1e-12);
    assert_true(fabs(bcop_machine_update(&MACHINE, 45e9) - 1.5) < 1e-12);
    assert_true(fabs(bcop_machine_copy(&MACHINE, 14e9) - 2) < 1e-12);
    assert_true(fabs(bcop_machine_send(&MACHINE, 5, 4e9) - (2 + 15e-6)) < 1e-12);
    const int levels[][2] = {{1, 0}, {2, 1}, {3, 2}, {4, 2}, {5, 3}, {1024, 10}, {4096, 12}};
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++)
        assert_true(fabs(bcop_machine_tree(&MACHINE, levels[i][0]) - levels[i][1] * 3e-6) < 1e-15);
}

typedef struct rule {
    bcop_stage_rule rule;
    void *options;
} rule;

/* Stochastic gradient descent: no products and no sums of its own. */
static rule sgd(void) {
    for (int k = 0; bcop_optimizer_kinds[k]; k++) {
        const bcop_optimizer_kind *kind = bcop_optimizer_kinds[k];
        if (strcmp(kind->name, "sgd") != 0)
            continue;
        rule r = {.rule = {.bjorck = {2e-6, 30}, .optimizer = kind}};
        r.options = calloc(1, kind->options_size);
        assert_non_null(r.options);
        bcop_option_default((bcop_options){kind->options, r.options});
        r.rule.optimizer_options = r.options;
        return r;
    }
    fail();
    return (rule){0};
}

static double seconds(const rule *r, bcop_placement placement, int count, int n, int ranks) {
    double s = NAN;
    assert_int_equal(
        bcop_plan_blocks(&r->rule, placement, count, n, ranks, ITERATIONS, &MACHINE, &s), BCOP_OK);
    return s;
}

static void close_to(double got, double wanted) {
    if (!(fabs(got - wanted) <= 1e-9 * wanted))
        fail_msg("%.12g, expected %.12g", got, wanted);
}

/* Two blocks on two ranks. Both ways agree with two reductions, 4 and 8 bytes, there and back. A
   square block's update is (4 + 3 + 2) n^3. */
static void test_two_ranks(void **state) {
    (void)state;
    rule r = sgd();
    const double agree = 4 * LATENCY + 2 * 12 / BANDWIDTH, update = 9 * CUBE / ORTHO;
    /* Half of both blocks' gradients goes and comes, then the finished halves; all received floats
       are added up: two read, one written. */
    close_to(seconds(&r, BCOP_PLACEMENT_REPLICATED, 2, N, 2),
             agree + 2 * LATENCY + 16 * FLOATS / BANDWIDTH + 3 * 8 * FLOATS / COPY + 2 * update);
    /* One gradient goes and one comes; the blocks go the other way, in two gathers. */
    close_to(seconds(&r, BCOP_PLACEMENT_OWNED, 2, N, 2), agree + LATENCY + 8 * FLOATS / BANDWIDTH +
                                                             3 * 4 * FLOATS / COPY + update +
                                                             2 * LATENCY + 8 * FLOATS / BANDWIDTH);
    free(r.options);
}

/* One rank: no messages. */
static void test_alone(void **state) {
    (void)state;
    rule r = sgd();
    close_to(seconds(&r, BCOP_PLACEMENT_REPLICATED, 3, N, 1), 3 * 9 * CUBE / ORTHO);
    free(r.options);
}

/* A block of 512 rows has two panels: the first two of four ranks hold half of it each. */
static void test_shared(void **state) {
    (void)state;
    rule r = sgd();
    assert_true(isinf(seconds(&r, BCOP_PLACEMENT_SHARED, 1, 448, 4)));
    const double f = 512.0 * 512, triangle = 512.0 * 513 / 2;
    const double update = (7 / 2.0 + 2) * f * 512 / ORTHO; /* both square the small matrices */
    /* The owner gets the other's gradient, sends it half of it back, and both send and receive half
       of each of two triangles (tangent, Gram matrix) and then the other half; one gather. */
    close_to(seconds(&r, BCOP_PLACEMENT_SHARED, 1, 512, 2),
             4 * LATENCY + 24 / BANDWIDTH + 4 * f / BANDWIDTH + 3 * 4 * f / COPY +
                 (LATENCY + 2 * f / BANDWIDTH) + update +
                 2 * (2 * LATENCY + 8 * triangle / BANDWIDTH) + LATENCY + 4 * f / BANDWIDTH);
    free(r.options);
}

/* The crossover is where the two times meet: just below it replicating is not slower. */
static void test_crossover(void **state) {
    (void)state;
    rule r = sgd();
    bcop_machine slow = MACHINE;
    slow.latency_us = 1000;
    int n;
    assert_int_equal(
        bcop_plan_crossover(&r.rule, BCOP_PLACEMENT_OWNED, 4, 4, ITERATIONS, &slow, &n), BCOP_OK);
    assert_true(n > 64 && n % 64 == 0);
    for (int at = n - 64; at <= n; at += 64) {
        double owned, everywhere;
        bcop_plan_blocks(&r.rule, BCOP_PLACEMENT_OWNED, 4, at, 4, ITERATIONS, &slow, &owned);
        bcop_plan_blocks(&r.rule, BCOP_PLACEMENT_REPLICATED, 4, at, 4, ITERATIONS, &slow,
                         &everywhere);
        assert_true((owned < everywhere) == (at == n));
    }
    slow.bandwidth_gbs = 1e-6;
    assert_int_equal(
        bcop_plan_crossover(&r.rule, BCOP_PLACEMENT_SHARED, 1, 4, ITERATIONS, &slow, &n), BCOP_OK);
    assert_int_equal(n, 0);
    free(r.options);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys),   cmocka_unit_test(test_rates),
        cmocka_unit_test(test_alone),  cmocka_unit_test(test_two_ranks),
        cmocka_unit_test(test_shared), cmocka_unit_test(test_crossover),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
