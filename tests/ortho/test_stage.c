/* run: serial */
#include "ortho/stage.h"

#include "oracle.h"

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

enum { PARAMETERS = 8 };

static const bcop_bjorck_rule RULE = {.tolerance = 2e-6, .max_iterations = 30};

/* Square, tall, nearly square, one column, none, and two biases. */
static const bcop_parameter LAYOUT[PARAMETERS] = {
    {.name = "00-conv/blocks/H", .rows = 16, .cols = 9, .orthonormal = true},
    {.name = "00-conv/blocks/P1", .rows = 16, .cols = 8, .orthonormal = true},
    {.name = "00-conv/blocks/Q1", .rows = 1, .cols = 0, .orthonormal = true},
    {.name = "00-conv/bias", .rows = 16, .cols = 1},
    {.name = "02-dense/blocks/W", .rows = 40, .cols = 7, .orthonormal = true},
    {.name = "02-dense/bias", .rows = 1, .cols = 40},
    {.name = "04-dense/blocks/W", .rows = 12, .cols = 12, .orthonormal = true},
    {.name = "05-dense/blocks/W", .rows = 9, .cols = 1, .orthonormal = true},
};

/* A stage on a copy of the layout (or a choice of it), planned and reserved. */
typedef struct rig {
    int count;
    bcop_parameter parameter[PARAMETERS];
    bcop_parameter *pointer[PARAMETERS];
    void *options;
    bcop_arena arena;
    bcop_stage stage;
} rig;

static void rig_open(rig *r, const bcop_optimizer_kind *kind, int count, const int choice[]) {
    *r = (rig){.count = count, .arena = {.name = "test"}};
    for (int i = 0; i < count; i++) {
        r->parameter[i] = LAYOUT[choice ? choice[i] : i];
        r->pointer[i] = &r->parameter[i];
    }
    r->options = calloc(1, kind->options_size);
    assert_non_null(r->options);
    bcop_option_default((bcop_options){kind->options, r->options});
    const bcop_stage_rule rule = {
        .bjorck = RULE, .optimizer = kind, .optimizer_options = r->options};
    assert_int_equal(bcop_stage_open(&r->stage, &bcop_comm_alone, rule, count, r->pointer),
                     BCOP_OK);
    bcop_stage_plan(&r->stage, &r->arena);
    assert_int_equal(bcop_arena_reserve(&r->arena), BCOP_OK);
    bcop_stage_plan(&r->stage, &r->arena);
    assert_true(r->arena.used <= r->arena.size);
}

static void rig_close(rig *r) {
    bcop_stage_close(&r->stage);
    bcop_arena_free(&r->arena);
    free(r->options);
}

static double defect(const bcop_parameter *p) {
    const long size = bcop_parameter_size(p);
    double *u = oracle_doubles(size);
    oracle_to_double(size, p->value, u);
    const double d = p->cols ? oracle_defect(p->rows, p->cols, u) / sqrt(p->cols) : 0;
    free(u);
    return d;
}

/* ---- memory ---- */

typedef struct piece {
    const float *at;
    long count;
} piece;

static int gather_pieces(const rig *r, piece pieces[]) {
    int n = 0;
    for (int i = 0; i < r->count; i++) {
        const bcop_stage_entry *e = &r->stage.entry[i];
        assert_ptr_equal(e->parameter, &r->parameter[i]);
        pieces[n++] = (piece){r->parameter[i].value, bcop_parameter_size(&r->parameter[i])};
        pieces[n++] = (piece){r->parameter[i].gradient, bcop_parameter_size(&r->parameter[i])};
        for (int s = 0; s < e->slots; s++)
            pieces[n++] = (piece){e->state[s], bcop_stage_slot_size(e, s)};
    }
    return n;
}

static void test_stage_memory(void **state) {
    (void)state;
    for (int k = 0; bcop_optimizer_kinds[k]; k++) {
        rig r;
        rig_open(&r, bcop_optimizer_kinds[k], PARAMETERS, NULL);
        piece pieces[(2 + BCOP_SLOTS_MAX) * PARAMETERS + 1];
        int n = gather_pieces(&r, pieces);
        pieces[n++] = (piece){r.stage.scratch, 1};
        const float *low = (const float *)(const void *)r.arena.base;
        const float *high = low + r.arena.size / sizeof(float);
        for (int i = 0; i < n; i++) {
            assert_true(pieces[i].at >= low && pieces[i].at + pieces[i].count <= high);
            for (int j = 0; j < i; j++)
                assert_true(pieces[i].count == 0 || pieces[j].count == 0 ||
                            pieces[i].at >= pieces[j].at + pieces[j].count ||
                            pieces[j].at >= pieces[i].at + pieces[i].count);
        }
        for (int i = 0; i < n - 1; i++) /* all but the scratch start as zeros */
            for (long e = 0; e < pieces[i].count; e++)
                assert_true(pieces[i].at[e] == 0);
        rig_close(&r);
    }
}

static void test_stage_empty(void **state) {
    (void)state;
    rig r;
    int iterations = -1;
    rig_open(&r, bcop_optimizer_kinds[0], 0, NULL);
    assert_int_equal(bcop_stage_initialise(&r.stage, 1), BCOP_OK);
    assert_int_equal(bcop_stage_update(&r.stage, 0.1, 0.1, 1, &iterations), BCOP_OK);
    assert_int_equal(iterations, 0);
    rig_close(&r);
}

/* ---- initial blocks ---- */

static void test_stage_initial(void **state) {
    (void)state;
    rig r;
    rig_open(&r, bcop_optimizer_kinds[0], PARAMETERS, NULL);
    for (int i = 0; i < PARAMETERS; i++) /* what was there before does not count */
        for (long e = 0; e < bcop_parameter_size(&r.parameter[i]); e++)
            r.parameter[i].value[e] = 7;
    assert_int_equal(bcop_stage_initialise(&r.stage, 3), BCOP_OK);
    for (int i = 0; i < PARAMETERS; i++) {
        const bcop_parameter *p = &r.parameter[i];
        if (p->orthonormal)
            assert_true(defect(p) <= 3e-7);
        else
            for (long e = 0; e < bcop_parameter_size(p); e++)
                assert_true(p->value[e] == 0);
    }
    rig_close(&r);
}

static bool same_bits(const bcop_parameter *a, const bcop_parameter *b) {
    return memcmp(a->value, b->value, (size_t)bcop_parameter_size(a) * sizeof(float)) == 0;
}

/* Only the seed and the name matter: neither the order, nor the other parameters, nor the kind of
 * optimizer. */
static void test_stage_initial_key(void **state) {
    (void)state;
    static const int REVERSED[] = {7, 6, 5, 4, 3, 2, 1, 0}, FEW[] = {6, 4};
    rig all, reversed, few, other;
    rig_open(&all, bcop_optimizer_kinds[0], PARAMETERS, NULL);
    rig_open(&reversed, bcop_optimizer_kinds[3], PARAMETERS, REVERSED);
    rig_open(&few, bcop_optimizer_kinds[2], COUNT(FEW), FEW);
    rig_open(&other, bcop_optimizer_kinds[0], PARAMETERS, NULL);
    strcpy(other.parameter[4].name, "03-dense/blocks/W");
    assert_int_equal(bcop_stage_initialise(&all.stage, 11), BCOP_OK);
    assert_int_equal(bcop_stage_initialise(&reversed.stage, 11), BCOP_OK);
    assert_int_equal(bcop_stage_initialise(&few.stage, 11), BCOP_OK);
    assert_int_equal(bcop_stage_initialise(&other.stage, 11), BCOP_OK);
    for (int i = 0; i < PARAMETERS; i++)
        assert_true(same_bits(&all.parameter[i], &reversed.parameter[PARAMETERS - 1 - i]));
    assert_true(same_bits(&all.parameter[6], &few.parameter[0]));
    assert_true(same_bits(&all.parameter[4], &few.parameter[1]));
    assert_true(same_bits(&all.parameter[6], &other.parameter[6]));
    assert_false(same_bits(&all.parameter[4], &other.parameter[4]));
    const uint64_t seeds[] = {12, 11 + ((uint64_t)1 << 32)};
    for (int k = 0; k < COUNT(seeds); k++) {
        assert_int_equal(bcop_stage_initialise(&other.stage, seeds[k]), BCOP_OK);
        assert_false(same_bits(&all.parameter[6], &other.parameter[6]));
    }
    assert_int_equal(bcop_stage_initialise(&reversed.stage, 11), BCOP_OK); /* once more */
    assert_true(same_bits(&all.parameter[0], &reversed.parameter[7]));
    rig_close(&all), rig_close(&reversed), rig_close(&few), rig_close(&other);
}

/* ---- updates ---- */

static void random_gradients(rig *r, uint64_t seed, double size) {
    for (int i = 0; i < r->count; i++) {
        const bcop_parameter *p = &r->parameter[i];
        double *g = oracle_doubles(bcop_parameter_size(p));
        oracle_random(seed * 100 + (uint64_t)i, bcop_parameter_size(p), g);
        for (long e = 0; e < bcop_parameter_size(p); e++)
            p->gradient[e] = (float)(size * g[e]);
        free(g);
    }
}

static void test_stage_stays_orthonormal(void **state) {
    (void)state;
    for (int k = 0; bcop_optimizer_kinds[k]; k++) {
        rig r;
        rig_open(&r, bcop_optimizer_kinds[k], PARAMETERS, NULL);
        assert_int_equal(bcop_stage_initialise(&r.stage, 5), BCOP_OK);
        for (long step = 1; step <= 100; step++) {
            int iterations = -1;
            random_gradients(&r, (uint64_t)step, step % 10 ? 1 : 1e-6);
            if (bcop_stage_update(&r.stage, 0.1, 0.1, step, &iterations) != BCOP_OK)
                fail_msg("%s, step %ld: %s", r.stage.rule.optimizer->name, step,
                         bcop_status_message());
            assert_in_range(iterations, 1, RULE.max_iterations);
            for (int i = 0; i < r.count; i++) {
                if (!r.parameter[i].orthonormal)
                    continue;
                const double d = defect(&r.parameter[i]);
                if (!(d <= RULE.tolerance))
                    fail_msg("%s, step %ld, %s: defect %.3e", r.stage.rule.optimizer->name, step,
                             r.parameter[i].name, d);
            }
        }
        rig_close(&r);
    }
}

static void test_stage_not_finite(void **state) {
    (void)state;
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int k = 0; bcop_optimizer_kinds[k]; k++)
        for (int b = 0; b < COUNT(bad); b++)
            for (int i = 0; i < PARAMETERS; i++) {
                const bcop_parameter *layout = &LAYOUT[i];
                if (!layout->orthonormal || layout->cols == 0)
                    continue;
                rig r;
                rig_open(&r, bcop_optimizer_kinds[k], PARAMETERS, NULL);
                assert_int_equal(bcop_stage_initialise(&r.stage, 5), BCOP_OK);
                random_gradients(&r, 9, 1);
                r.parameter[i].gradient[bcop_parameter_size(layout) / 2] = bad[b];
                int iterations;
                assert_int_equal(bcop_stage_update(&r.stage, 0.01, 0.01, 1, &iterations),
                                 BCOP_DIVERGED);
                assert_non_null(strstr(bcop_status_message(), layout->name));
                rig_close(&r);
            }
}

/* The blocks' step size moves no bias and the other way round. */
static void test_stage_rates(void **state) {
    (void)state;
    for (int k = 0; bcop_optimizer_kinds[k]; k++)
        for (int bias = 0; bias <= 1; bias++) {
            rig r, before;
            int iterations;
            rig_open(&r, bcop_optimizer_kinds[k], PARAMETERS, NULL);
            rig_open(&before, bcop_optimizer_kinds[k], PARAMETERS, NULL);
            assert_int_equal(bcop_stage_initialise(&r.stage, 5), BCOP_OK);
            assert_int_equal(bcop_stage_initialise(&before.stage, 5), BCOP_OK);
            random_gradients(&r, 9, 1);
            assert_int_equal(
                bcop_stage_update(&r.stage, bias ? 0 : 0.01, bias ? 0.01 : 0, 1, &iterations),
                BCOP_OK);
            for (int i = 0; i < PARAMETERS; i++)
                if (r.parameter[i].cols > 0)
                    assert_int_equal(same_bits(&r.parameter[i], &before.parameter[i]),
                                     bias == r.parameter[i].orthonormal);
            rig_close(&r), rig_close(&before);
        }
}

/* ---- a problem with a known answer ---- */

/* A = U0 S with S symmetric positive definite, moved by a tenth: its polar factor lies in U0's
 * component of the square orthogonal matrices, and is the U that minimises ||U - A||. */
static void target_near(uint64_t seed, const bcop_parameter *p, double *a) {
    const long size = bcop_parameter_size(p), square = (long)p->cols * p->cols;
    double *u = oracle_doubles(size), *e = oracle_doubles(size);
    double *v = oracle_doubles(square), *vt = oracle_doubles(square), *s = oracle_doubles(square);
    oracle_to_double(size, p->value, u);
    oracle_random_orthonormal(seed, p->cols, p->cols, v);
    oracle_transpose(p->cols, p->cols, v, vt);
    for (int i = 0; i < p->cols; i++)
        for (int j = 0; j < p->cols; j++)
            v[(long)i * p->cols + j] *= 0.8 + 0.7 * j / p->cols;
    oracle_multiply(p->cols, p->cols, p->cols, v, vt, s);
    oracle_multiply(p->rows, p->cols, p->cols, u, s, a);
    oracle_random(seed + 1, size, e);
    const double norm = oracle_norm2(p->rows, p->cols, e);
    for (long i = 0; i < size; i++)
        a[i] += 0.4 / norm * e[i];
    free(u), free(e), free(v), free(vt), free(s);
}

static void test_stage_converges(void **state) {
    (void)state;
    enum { STEPS = 1000 };
    for (int k = 0; bcop_optimizer_kinds[k]; k++) {
        rig r;
        rig_open(&r, bcop_optimizer_kinds[k], PARAMETERS, NULL);
        assert_int_equal(bcop_stage_initialise(&r.stage, 21), BCOP_OK);
        double *target[PARAMETERS];
        for (int i = 0; i < PARAMETERS; i++) {
            const bcop_parameter *p = &r.parameter[i];
            target[i] = oracle_doubles(bcop_parameter_size(p));
            if (p->orthonormal && p->cols > 0)
                target_near((uint64_t)(300 + i), p, target[i]);
            else /* within what the steps of Adam add up to */
                for (long e = 0; e < bcop_parameter_size(p); e++)
                    target[i][e] = (double)(e % 7 - 3) / 4;
        }
        for (long step = 1; step <= STEPS; step++) {
            for (int i = 0; i < PARAMETERS; i++)
                for (long e = 0; e < bcop_parameter_size(&r.parameter[i]); e++)
                    r.parameter[i].gradient[e] =
                        2 * (r.parameter[i].value[e] - (float)target[i][e]);
            int iterations;
            const double lr = 0.05 * pow(1e-5, (double)step / STEPS);
            assert_int_equal(bcop_stage_update(&r.stage, lr, lr, step, &iterations), BCOP_OK);
        }
        for (int i = 0; i < PARAMETERS; i++) {
            const bcop_parameter *p = &r.parameter[i];
            if (p->cols == 0)
                continue;
            if (p->orthonormal)
                oracle_polar(p->rows, p->cols, target[i], target[i]);
            const double off = oracle_relative_error(bcop_parameter_size(p), target[i], p->value);
            if (!(off <= 1e-4))
                fail_msg("%s, %s: %.2e from the minimum", r.stage.rule.optimizer->name, p->name,
                         off);
        }
        for (int i = 0; i < PARAMETERS; i++)
            free(target[i]);
        rig_close(&r);
    }
}

/* A loss of zero: gradients vanish, the momentum shrinks through every size, and nothing breaks. */
static void test_stage_no_gradient(void **state) {
    (void)state;
    for (int k = 0; bcop_optimizer_kinds[k]; k++) {
        rig r;
        rig_open(&r, bcop_optimizer_kinds[k], PARAMETERS, NULL);
        assert_int_equal(bcop_stage_initialise(&r.stage, 5), BCOP_OK);
        for (long step = 1; step <= 1200; step++) {
            int iterations;
            random_gradients(&r, (uint64_t)step, step < 3 ? 1 : 0);
            if (bcop_stage_update(&r.stage, 0.01, 0.01, step, &iterations) != BCOP_OK)
                fail_msg("%s, step %ld: %s", r.stage.rule.optimizer->name, step,
                         bcop_status_message());
        }
        for (int i = 0; i < PARAMETERS; i++)
            for (long e = 0; e < bcop_parameter_size(&r.parameter[i]); e++)
                assert_true(isfinite(r.parameter[i].value[e]));
        rig_close(&r);
    }
}

static void test_stage_defect(void **state) {
    (void)state;
    static const int SHAPES[][2] = {{1, 1}, {5, 3}, {8, 8}, {40, 7}};
    for (int s = 0; s < COUNT(SHAPES); s++) {
        const int rows = SHAPES[s][0], cols = SHAPES[s][1];
        const long count = (long)rows * cols;
        double *u = oracle_doubles(count);
        float *w = oracle_floats(count);
        oracle_random((uint64_t)(s + 1), count, u);
        oracle_to_float(count, u, w);
        oracle_to_double(count, w, u);
        const double expected = oracle_defect(rows, cols, u) / sqrt(cols);
        assert_true(fabs(bcop_stage_defect(rows, cols, w) - expected) <= 1e-12 * expected);
        w[count - 1] = NAN;
        assert_false(bcop_stage_defect(rows, cols, w) < INFINITY);
        free(u), free(w);
    }
    float nothing = 1;
    assert_true(bcop_stage_defect(4, 0, &nothing) == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stage_memory),
        cmocka_unit_test(test_stage_empty),
        cmocka_unit_test(test_stage_initial),
        cmocka_unit_test(test_stage_initial_key),
        cmocka_unit_test(test_stage_stays_orthonormal),
        cmocka_unit_test(test_stage_not_finite),
        cmocka_unit_test(test_stage_rates),
        cmocka_unit_test(test_stage_converges),
        cmocka_unit_test(test_stage_no_gradient),
        cmocka_unit_test(test_stage_defect),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
