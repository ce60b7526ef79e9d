/* run: serial */
/* The paper's procedure as the benchmarks run it: its iterates end at the polar factor, and its
 * gradient is that of the whole map, by central differences in float64. */
#include "app/bench_paper.h"

#include "oracle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { ROWS = 7, COLS = 4, SIZE = ROWS * COLS };

static const double spectrum[COLS] = {1.5, 1.1, 0.8, 0.4};

static bcop_bench_paper open_paper(int iterations, const double *w, bcop_arena *arena) {
    bcop_bench_paper p;
    *arena = (bcop_arena){.name = "paper"};
    bcop_bench_paper_plan(&p, ROWS, COLS, iterations, arena);
    assert_int_equal(bcop_arena_reserve(arena), BCOP_OK);
    bcop_bench_paper_plan(&p, ROWS, COLS, iterations, arena);
    oracle_to_float(SIZE, w, p.iterate);
    return p;
}

static double bjorck(double s, const void *context) {
    for (int i = 0; i < *(const int *)context; i++)
        s = (3 * s - s * s * s) / 2;
    return s;
}

static void forward_is_bjorck(void **state) {
    (void)state;
    double w[SIZE], expected[SIZE];
    oracle_random_spectrum(1, ROWS, COLS, spectrum, w);
    for (int iterations = 1; iterations <= 20; iterations++) {
        bcop_arena arena;
        bcop_bench_paper p = open_paper(iterations, w, &arena);
        oracle_map_spectrum(ROWS, COLS, w, bjorck, &iterations, expected);
        assert_true(oracle_relative_error(SIZE, expected, bcop_bench_paper_forward(&p)) < 2e-6);
        bcop_arena_free(&arena);
    }
    oracle_polar(ROWS, COLS, w, w);
    double difference = 0;
    for (int i = 0; i < SIZE; i++)
        difference += (w[i] - expected[i]) * (w[i] - expected[i]);
    assert_true(difference < 1e-20); /* the twenty that the benchmark takes are enough here */
}

typedef struct loss {
    int iterations;
    const double *weight;
} loss;

/* <weight, W after the iterations> */
static double evaluate(const double *x, const void *context) {
    const loss *l = context;
    double w[SIZE], t[SIZE], g[COLS * COLS], next[SIZE], sum = 0;
    memcpy(w, x, sizeof w);
    for (int i = 0; i < l->iterations; i++) {
        oracle_transpose(ROWS, COLS, w, t);
        oracle_multiply(COLS, COLS, ROWS, t, w, g);
        oracle_multiply(ROWS, COLS, COLS, w, g, next);
        for (int k = 0; k < SIZE; k++)
            w[k] = 1.5 * w[k] - 0.5 * next[k];
    }
    for (int k = 0; k < SIZE; k++)
        sum += l->weight[k] * w[k];
    return sum;
}

static void backward_is_its_gradient(void **state) {
    (void)state;
    static const int counts[] = {1, 2, 3, 20};
    double w[SIZE], weight[SIZE], expected[SIZE];
    oracle_random(2, SIZE, weight);
    for (int i = 0; i < 4; i++) {
        oracle_random_spectrum(1, ROWS, COLS, spectrum, w);
        const loss l = {counts[i], weight};
        bcop_arena arena;
        bcop_bench_paper p = open_paper(counts[i], w, &arena);
        oracle_gradient(evaluate, &l, SIZE, w, 1e-5, expected);
        oracle_to_float(SIZE, weight, p.slope[0]);
        bcop_bench_paper_forward(&p);
        const double error = oracle_relative_error(SIZE, expected, bcop_bench_paper_backward(&p));
        if (!(error < 5e-6))
            fail_msg("%d iterations: gradient off by %g", counts[i], error);
        bcop_arena_free(&arena);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward_is_bjorck),
        cmocka_unit_test(backward_is_its_gradient),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
