/* run: serial */
#include "ortho/optimizer.h"

#include "linalg/parameter.h"

#include "oracle.h"
#include "quintic.h"
#include "whole.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

enum { STEPS = 6 };

static const int SHAPES[][2] = {{2, 1},  {5, 2},   {7, 7},     {9, 8},     {15, 5},   {16, 16},
                                {31, 8}, {40, 24}, {600, 100}, {1100, 37}, {2050, 9}, {4200, 20}};

static const bcop_optimizer_kind *kind_named(const char *name) {
    for (int i = 0; bcop_optimizer_kinds[i]; i++)
        if (strcmp(bcop_optimizer_kinds[i]->name, name) == 0)
            return bcop_optimizer_kinds[i];
    fail_msg("there is no optimizer %s", name);
    return NULL;
}

/* Options as the program reads them, to be freed. */
static void *options_of(const bcop_optimizer_kind *kind, const char *yaml) {
    void *options = calloc(1, kind->options_size);
    assert_non_null(options);
    bcop_config *config = NULL;
    assert_int_equal(bcop_config_parse(yaml, strlen(yaml), "test", &config), BCOP_OK);
    const bcop_options part = {kind->options, options};
    const bcop_node *root = bcop_config_root(config);
    if (bcop_option_read(root, root, "optimizer", 1, &part) != BCOP_OK)
        fail_msg("%s", bcop_status_message());
    bcop_config_free(config);
    return options;
}

/* A parameter with all that one optimizer keeps for it. */
typedef struct bench {
    const bcop_optimizer_kind *kind;
    void *options;
    bcop_parameter parameter;
    whole block;
    int slots;
    float *state[BCOP_SLOTS_MAX];
    float *scratch;
    long scratch_size;
} bench;

static bench bench_open(const char *kind, const char *yaml, int rows, int cols, bool orthonormal) {
    bench b = {.kind = kind_named(kind)};
    const long count = (long)rows * cols;
    b.options = options_of(b.kind, yaml);
    b.parameter = (bcop_parameter){.name = "00-dense/blocks/W",
                                   .rows = rows,
                                   .cols = cols,
                                   .orthonormal = orthonormal,
                                   .value = oracle_floats(count),
                                   .gradient = oracle_floats(count)};
    whole_open(&b.block, rows, cols);
    bcop_slot slot[BCOP_SLOTS_MAX];
    b.slots = b.kind->slots(orthonormal, slot);
    assert_in_range(b.slots, 0, BCOP_SLOTS_MAX);
    for (int i = 0; i < b.slots; i++) {
        assert_non_null(slot[i].name);
        for (int j = 0; j < i; j++)
            assert_string_not_equal(slot[i].name, slot[j].name);
        b.state[i] = oracle_floats(slot[i].single ? 1 : count);
    }
    b.scratch_size = orthonormal && b.kind->scratch ? b.kind->scratch(&b.block.rows) : 0;
    b.scratch = oracle_floats(b.scratch_size + 1);
    b.scratch[b.scratch_size] = 54321;
    return b;
}

static void bench_close(bench *b) {
    assert_true(b->scratch[b->scratch_size] == 54321);
    for (int i = 0; i < b->slots; i++)
        free(b->state[i]);
    free(b->parameter.value), free(b->parameter.gradient);
    free(b->scratch), free(b->options);
    whole_close(&b->block);
}

static void bench_step(bench *b, double lr, long t) {
    const bcop_step step = {.lr = lr,
                            .step = t,
                            .rows = b->parameter.orthonormal ? &b->block.rows : NULL,
                            .size = bcop_parameter_size(&b->parameter),
                            .value = b->parameter.value,
                            .gradient = b->parameter.gradient,
                            .state = b->state,
                            .scratch = b->scratch};
    b->kind->step(b->options, &step);
}

/* The other side: float64, with the numbers the YAML text says. */
typedef struct reference {
    double beta1, beta2, epsilon; /* Adam */
    double momentum;
    bool nesterov;
    int iterations;
    double *first, *second;
} reference;

typedef void (*formula)(reference *r, double lr, long t, const bcop_parameter *p, const double *u,
                        const double *g, double *step);

/* Kingma and Ba, algorithm 1. */
static void adam(reference *r, double lr, long t, const bcop_parameter *p, const double *u,
                 const double *g, double *step) {
    (void)u;
    for (long i = 0; i < bcop_parameter_size(p); i++) {
        r->first[i] = r->beta1 * r->first[i] + (1 - r->beta1) * g[i];
        r->second[i] = r->beta2 * r->second[i] + (1 - r->beta2) * g[i] * g[i];
        const double m = r->first[i] / (1 - pow(r->beta1, (double)t));
        const double v = r->second[i] / (1 - pow(r->beta2, (double)t));
        step[i] = lr * m / (sqrt(v) + r->epsilon);
    }
}

/* The same with the mean of the squares over the block. */
static void adam_block(reference *r, double lr, long t, const bcop_parameter *p, const double *u,
                       const double *g, double *step) {
    (void)u;
    const long size = bcop_parameter_size(p);
    const double mean = pow(oracle_frobenius(size, g), 2) / (double)size;
    r->second[0] = r->beta2 * r->second[0] + (1 - r->beta2) * mean;
    const double v = r->second[0] / (1 - pow(r->beta2, (double)t));
    for (long i = 0; i < size; i++) {
        r->first[i] = r->beta1 * r->first[i] + (1 - r->beta1) * g[i];
        step[i] = lr * (r->first[i] / (1 - pow(r->beta1, (double)t))) / (sqrt(v) + r->epsilon);
    }
}

/* Sutskever et al. (2013) in the form that gradients at x allow. */
static void sgd(reference *r, double lr, long t, const bcop_parameter *p, const double *u,
                const double *g, double *step) {
    (void)t;
    (void)u;
    for (long i = 0; i < bcop_parameter_size(p); i++) {
        r->first[i] = r->momentum * r->first[i] + g[i];
        step[i] = lr * (r->nesterov ? g[i] + r->momentum * r->first[i] : r->first[i]);
    }
}

/* t = m - u sym(u^T m) */
static void tangent(int rows, int cols, const double *u, const double *m, double *t) {
    double *ut = oracle_doubles((long)rows * cols), *s = oracle_doubles((long)cols * cols);
    oracle_transpose(rows, cols, u, ut);
    oracle_multiply(cols, cols, rows, ut, m, s);
    for (int i = 0; i < cols; i++)
        for (int j = 0; j <= i; j++) {
            const double mean = (s[(long)i * cols + j] + s[(long)j * cols + i]) / 2;
            s[(long)i * cols + j] = s[(long)j * cols + i] = mean;
        }
    oracle_multiply(rows, cols, cols, u, s, t);
    for (long i = 0; i < (long)rows * cols; i++)
        t[i] = m[i] - t[i];
    free(ut), free(s);
}

static void muon(reference *r, double lr, long t, const bcop_parameter *p, const double *u,
                 const double *g, double *step) {
    (void)t;
    (void)u;
    const long size = bcop_parameter_size(p);
    for (long i = 0; i < size; i++)
        r->first[i] = r->momentum * r->first[i] + g[i];
    const quintic_rule rule = {quintic_scale(p->rows, p->cols, r->first), r->iterations};
    oracle_map_spectrum(p->rows, p->cols, r->first, quintic_map, &rule, step);
    for (long i = 0; i < size; i++)
        step[i] *= lr;
}

/* A random gradient, tangent for blocks, exact in float32, whose size changes from step to step. */
static void next_gradient(uint64_t seed, long t, const bcop_parameter *p, const double *u,
                          double *g) {
    const long size = bcop_parameter_size(p);
    oracle_random(seed, size, g);
    for (long i = 0; i < size; i++)
        g[i] *= 0.1 * pow(2, (double)(t % 3));
    if (p->orthonormal) {
        double *m = oracle_doubles(size);
        memcpy(m, g, (size_t)size * sizeof *m);
        tangent(p->rows, p->cols, u, m, g);
        free(m);
    }
    oracle_to_float(size, g, p->gradient);
    oracle_to_double(size, p->gradient, g);
}

static void compare(bench *b, reference r, formula expected, int shape) {
    const bcop_parameter *p = &b->parameter;
    const long size = bcop_parameter_size(p);
    double *x = oracle_doubles(size), *g = oracle_doubles(size), *step = oracle_doubles(size);
    r.first = oracle_doubles(size);
    r.second = oracle_doubles(size);
    oracle_random_orthonormal((uint64_t)(20 + shape), p->rows, p->cols, x);
    oracle_to_float(size, x, p->value);
    for (long t = 1; t <= STEPS; t++) {
        const double lr = 0.02 / (double)t;
        oracle_to_double(size, p->value, x);
        next_gradient((uint64_t)(1000 * shape + t), t, p, x, g);
        expected(&r, lr, t, p, x, g, step);
        bench_step(b, lr, t);
        double off = 0;
        for (long i = 0; i < size; i++)
            off += pow((double)p->value[i] - (x[i] - step[i]), 2);
        off = sqrt(off);
        /* The coefficients 1 - beta lose digits in float32; and x itself is rounded. */
        if (!(off <= 5e-5 * oracle_frobenius(size, step) + 1e-7 * oracle_frobenius(size, x)))
            fail_msg("%s, %d x %d, step %ld: off by %.2e of %.2e", b->kind->name, p->rows, p->cols,
                     t, off, oracle_frobenius(size, step));
    }
    free(x), free(g), free(step), free(r.first), free(r.second);
}

static void check(const char *kind, const char *yaml, reference r, formula block, formula plain) {
    for (int s = 0; s < COUNT(SHAPES); s++)
        for (int orthonormal = 0; orthonormal <= 1; orthonormal++) {
            bench b = bench_open(kind, yaml, SHAPES[s][0], SHAPES[s][1], orthonormal);
            compare(&b, r, orthonormal ? block : plain, s);
            bench_close(&b);
        }
}

static void test_adam(void **state) {
    (void)state;
    check("adam", "{}", (reference){.beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8}, adam, adam);
    check("adam", "{beta1: 0.7, beta2: 0.95, epsilon: 0.01}",
          (reference){.beta1 = 0.7, .beta2 = 0.95, .epsilon = 0.01}, adam, adam);
    check("adam", "{beta1: 0, beta2: 0}", (reference){.epsilon = 1e-8}, adam, adam);
}

static void test_adam_block(void **state) {
    (void)state;
    check("adam-block", "{}", (reference){.beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8},
          adam_block, adam);
    check("adam-block", "{beta1: 0.7, beta2: 0.95, epsilon: 0.01}",
          (reference){.beta1 = 0.7, .beta2 = 0.95, .epsilon = 0.01}, adam_block, adam);
}

static void test_sgd(void **state) {
    (void)state;
    check("sgd", "{}", (reference){.momentum = 0.9, .nesterov = true}, sgd, sgd);
    check("sgd", "{momentum: 0.6, nesterov: false}", (reference){.momentum = 0.6}, sgd, sgd);
    check("sgd", "{momentum: 0.6, nesterov: true}", (reference){.momentum = 0.6, .nesterov = true},
          sgd, sgd);
    check("sgd", "{momentum: 0}", (reference){.nesterov = true}, sgd, sgd);
}

static void test_muon(void **state) {
    (void)state;
    check("muon", "{}",
          (reference){
              .momentum = 0.9, .iterations = 2, .beta1 = 0.9, .beta2 = 0.999, .epsilon = 1e-8},
          muon, adam);
    check(
        "muon", "{momentum: 0.5, iterations: 3, beta1: 0.7, beta2: 0.95, epsilon: 0.01}",
        (reference){.momentum = 0.5, .iterations = 3, .beta1 = 0.7, .beta2 = 0.95, .epsilon = 0.01},
        muon, adam);
}

/* One step size serves all layers because no step is longer than lr, whatever the shape and the
 * gradient's size. */
static void test_muon_norm(void **state) {
    (void)state;
    static const int MORE[][2] = {{1, 1},   {3, 1},   {300, 1},   {64, 64},  {200, 60},
                                  {90, 80}, {11, 11}, {600, 100}, {4200, 20}};
    static const double SIZES[] = {1e-12, 1e-3, 1, 1e6};
    for (int s = 0; s < COUNT(MORE); s++)
        for (int k = 0; k < COUNT(SIZES); k++) {
            bench b = bench_open("muon", "{}", MORE[s][0], MORE[s][1], true);
            const int rows = MORE[s][0], cols = MORE[s][1];
            const long size = bcop_parameter_size(&b.parameter);
            double *x = oracle_doubles(size), *after = oracle_doubles(size);
            oracle_random_orthonormal((uint64_t)(60 + s), rows, cols, x);
            oracle_to_float(size, x, b.parameter.value);
            for (long t = 1; t <= 4; t++) {
                const double lr = 0.5;
                oracle_to_double(size, b.parameter.value, x);
                next_gradient((uint64_t)(100 * s + t), t, &b.parameter, x, after);
                for (long i = 0; i < size; i++)
                    b.parameter.gradient[i] *= (float)SIZES[k];
                bench_step(&b, lr, t);
                oracle_to_double(size, b.parameter.value, after);
                for (long i = 0; i < size; i++)
                    after[i] -= x[i];
                const double norm = oracle_norm2(rows, cols, after);
                assert_true(norm <= lr * (1 + 1e-5));
                /* Nor much shorter; but a 1 x 1 block has no direction to go. */
                assert_true(norm >= 0.9 * lr || rows == 1);
            }
            free(x), free(after);
            bench_close(&b);
        }
}

static void test_optimizer_no_columns(void **state) {
    (void)state;
    for (int i = 0; bcop_optimizer_kinds[i]; i++) {
        bench b = bench_open(bcop_optimizer_kinds[i]->name, "{}", 3, 0, true);
        bench_step(&b, 0.1, 1);
        bench_close(&b);
    }
}

static void check_table(const bcop_option *table, size_t size) {
    char *text = NULL;
    size_t length = 0;
    char *defaults = calloc(1, size), *again = calloc(1, size);
    assert_true(defaults && again);
    for (int i = 0; table[i].key; i++) {
        assert_true(table[i].help && *table[i].help);
        assert_non_null(table[i].fallback);
        assert_true(table[i].offset < size);
    }
    const bcop_options part = {table, defaults}, back = {table, again};
    bcop_option_default(part);
    FILE *out = open_memstream(&text, &length);
    assert_non_null(out);
    bcop_option_write(out, 1, &part);
    assert_int_equal(fclose(out), 0);
    bcop_config *config = NULL;
    assert_int_equal(bcop_config_parse(text, length, "test", &config), BCOP_OK);
    const bcop_node *root = bcop_config_root(config);
    assert_int_equal(bcop_option_read(root, root, "optimizer", 1, &back), BCOP_OK);
    assert_null(bcop_option_differs(table, defaults, again));
    bcop_config_free(config);
    free(text), free(defaults), free(again);
}

static void test_optimizer_tables(void **state) {
    (void)state;
    static const char *const NAMES[] = {"adam", "adam-block", "sgd", "muon"};
    for (int i = 0; i < COUNT(NAMES); i++)
        kind_named(NAMES[i]);
    for (int i = 0; bcop_optimizer_kinds[i]; i++) {
        const bcop_optimizer_kind *kind = bcop_optimizer_kinds[i];
        assert_true(kind->help && *kind->help);
        assert_ptr_equal(kind_named(kind->name), kind); /* no name twice */
        check_table(kind->options, kind->options_size);
    }
    check_table(bcop_optimizer_table, sizeof(bcop_optimizer_options));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_adam),
        cmocka_unit_test(test_adam_block),
        cmocka_unit_test(test_sgd),
        cmocka_unit_test(test_muon),
        cmocka_unit_test(test_muon_norm),
        cmocka_unit_test(test_optimizer_no_columns),
        cmocka_unit_test(test_optimizer_tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
