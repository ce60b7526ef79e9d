/* run: serial */
#include "nn_fixture.h"
#include "nn_oracle.h"
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

/* FEW and MANY: batches of which the gradients go by factors, and by lane sums. */
enum { IMAGES = 5, FEW = 1, MANY = 1 << 20 };

/* One dense layer with IMAGES images; everything of the expected side is float64, and inputs are
   flattened as (channel, row, column). */
typedef struct instance {
    bcop_shape shape;
    int in, units;
    bool bias, rows; /* rows: blocks are the weight's rows */
    char text[96];
    nn_fixture f;
    float *x, *y, *gy, *gx;  /* NHWC */
    double *flat;            /* [IMAGES][in] */
    double *weight, *offset; /* [units][in] and [units], from the parameters */
} instance;

static void read_parameters(instance *t) {
    const int blocks = t->rows ? t->units : 1;
    bcop_parameter *const *p = t->f.model->parameter;
    double *u = oracle_doubles((long)t->in * t->units);
    for (int i = 0; i < blocks; i++)
        oracle_to_double(bcop_parameter_size(p[i]), p[i]->value, u + (long)i * t->in);
    t->weight = oracle_doubles((long)t->in * t->units);
    if (!t->rows && t->in >= t->units) /* the block is tall: in x units */
        oracle_transpose(t->in, t->units, u, t->weight);
    else
        memcpy(t->weight, u, (size_t)t->in * (size_t)t->units * sizeof *u);
    free(u);
    t->offset = oracle_doubles(t->units);
    if (t->bias)
        oracle_to_double(t->units, p[blocks]->value, t->offset);
}

static instance open_instance(bcop_shape shape, int units, bool bias, bool rows, int batch) {
    instance t = {.shape = shape,
                  .in = (int)bcop_shape_size(shape),
                  .units = units,
                  .bias = bias,
                  .rows = rows};
    snprintf(t.text, sizeof t.text, "[dense: {units: %d, bias: %s, normalize: %s}]", units,
             bias ? "true" : "false", rows ? "rows" : "none");
    t.f = nn_fixture_open(
        &(nn_setting){.list = t.text, .in = shape, .classes = units, .run = IMAGES, .batch = batch},
        (uint64_t)(t.in + units));
    assert_true(t.f.layer->factored ==
                (!rows && (long)batch * (t.in + units) <= 2L * t.in * units));
    t.x = oracle_random_floats(1, (long)IMAGES * t.in, 1);
    t.gy = oracle_random_floats(2, (long)IMAGES * units, 1);
    t.gx = oracle_floats((long)IMAGES * t.in);
    t.flat = oracle_doubles((long)IMAGES * t.in);
    for (long i = 0; i < IMAGES; i++)
        nn_oracle_chw(shape, t.x + i * t.in, t.flat + i * t.in);
    read_parameters(&t);
    t.y = nn_fixture_forward(&t.f, IMAGES, t.x);
    nn_fixture_backward(&t.f, IMAGES, t.gy, t.gx);
    return t;
}

static void close_instance(instance *t) {
    nn_fixture_close(&t->f);
    free(t->x);
    free(t->y);
    free(t->gy);
    free(t->gx);
    free(t->flat);
    free(t->weight);
    free(t->offset);
}

static void for_each_layer(void (*check)(instance *t)) {
    static const bcop_shape shapes[] = {{1, 1, 1}, {1, 1, 12}, {3, 2, 2}, {2, 5, 3}, {4, 4, 7}};
    static const int units[] = {1, 7, 12, 30, 40};
    for (int s = 0; s < 5; s++)
        for (int u = 0; u < 5; u++) {
            for (int way = 0; way < 3; way++) {
                instance t = open_instance(shapes[s], units[u], (s + u) % 3 != 0, way == 2,
                                           way ? MANY : FEW);
                check(&t);
                close_instance(&t);
            }
        }
}

static void expect_near(const instance *t, const char *what, long count, const double *expected,
                        const float *got) {
    const double error = oracle_relative_error(count, expected, got);
    if (!(error <= 5e-6))
        fail_msg("%s from %d x %d x %d: %s off by %g", t->text, t->shape.height, t->shape.width,
                 t->shape.channels, what, error);
}

static void check_forward(instance *t) {
    double *expected = oracle_doubles(t->units);
    const bcop_parameter *block = t->f.model->parameter[0];
    assert_int_equal(block->rows, t->rows || t->in > t->units ? t->in : t->units);
    assert_true(block->orthonormal);
    for (long i = 0; i < IMAGES; i++) {
        nn_oracle_dense_apply(t->in, t->units, t->weight, t->offset, t->flat + i * t->in, expected);
        expect_near(t, "output", t->units, expected, t->y + i * t->units);
    }
    free(expected);
}

static void forward_equals_the_definition(void **state) {
    (void)state;
    for_each_layer(check_forward);
}

/* gx = W^T gy, unflattened; dW = sum of gy x^T; db = sum of gy. */
static void check_backward(instance *t) {
    double *gx = oracle_doubles(t->in), *nhwc = oracle_doubles((long)IMAGES * t->in);
    double *gw = oracle_doubles((long)t->in * t->units), *gb = oracle_doubles(t->units);
    for (long i = 0; i < IMAGES; i++) {
        memset(gx, 0, (size_t)t->in * sizeof *gx);
        for (int u = 0; u < t->units; u++) {
            const double g = (double)t->gy[i * t->units + u];
            gb[u] += g;
            for (int j = 0; j < t->in; j++) {
                gx[j] += t->weight[(long)u * t->in + j] * g;
                gw[(long)u * t->in + j] += g * t->flat[i * t->in + j];
            }
        }
        nn_oracle_nhwc(t->shape, gx, nhwc + i * t->in);
    }
    expect_near(t, "input gradient", (long)IMAGES * t->in, nhwc, t->gx);
    double *block = oracle_doubles((long)t->in * t->units);
    if (!t->rows && t->in >= t->units)
        oracle_transpose(t->units, t->in, gw, block);
    else
        memcpy(block, gw, (size_t)t->in * (size_t)t->units * sizeof *gw);
    const int blocks = t->rows ? t->units : 1;
    const long size = (long)t->in * t->units / blocks;
    for (int i = 0; i < blocks; i++)
        expect_near(t, "block gradient", size, block + i * size,
                    t->f.model->parameter[i]->gradient);
    if (t->bias)
        expect_near(t, "bias gradient", t->units, gb, t->f.model->parameter[blocks]->gradient);
    assert_int_equal(t->f.model->parameters, t->bias ? blocks + 1 : blocks);
    free(block);
    free(gb);
    free(gw);
    free(nhwc);
    free(gx);
}

/* image = left U: the input, or the output's gradient, times the block; so U^T times the block's
   gradient is image^T times the other factor. */
static void check_image(instance *t) {
    if (!t->f.layer->factored)
        return;
    const bcop_parameter *p = t->f.model->parameter[0];
    const bool wide = t->in >= t->units;
    double *expected = oracle_doubles((long)IMAGES * p->cols);
    for (long i = 0; i < IMAGES; i++)
        for (int j = 0; j < p->cols; j++)
            for (int k = 0; k < p->rows; k++)
                expected[i * p->cols + j] +=
                    (wide ? t->flat[i * t->in + k] : (double)t->gy[i * t->units + k]) *
                    (double)p->value[(long)k * p->cols + j];
    expect_near(t, "image", (long)IMAGES * p->cols, expected, t->f.tape.image);
    free(expected);
}

static void image_is_the_factor_times_the_block(void **state) {
    (void)state;
    for_each_layer(check_image);
}

static void backward_equals_the_definition(void **state) {
    (void)state;
    for_each_layer(check_backward);
}

/* The stored weight is PyTorch's [out][in] over the (C, H, W) input, and loading it elsewhere gives
   the same bits. */
static void check_stored(instance *t) {
    double *stored = nn_fixture_stored(t->f.layer);
    assert_string_equal(t->f.layer->kind->stored_name, "weight");
    assert_int_equal(t->f.layer->stored_dimensions, 2);
    assert_int_equal(t->f.layer->stored_size[0], t->units);
    assert_int_equal(t->f.layer->stored_size[1], t->in);
    assert_memory_equal(stored, t->weight, (size_t)t->in * (size_t)t->units * sizeof *stored);
    nn_fixture other = nn_fixture_open(&(nn_setting){.list = t->text,
                                                     .in = t->shape,
                                                     .classes = t->units,
                                                     .run = IMAGES,
                                                     .evaluating = true},
                                       77);
    nn_fixture_load(&t->f, &other);
    float *again = nn_fixture_forward(&other, IMAGES, t->x);
    assert_memory_equal(again, t->y, IMAGES * (size_t)t->units * sizeof *again);
    free(again);
    nn_fixture_close(&other);
    free(stored);
}

static void stored_weight_is_the_layer(void **state) {
    (void)state;
    for_each_layer(check_stored);
}

static double norm(long count, const float *x) {
    double *exact = oracle_doubles(count);
    oracle_to_double(count, x, exact);
    const double result = oracle_frobenius(count, exact);
    free(exact);
    return result;
}

static void check_norms(instance *t) {
    for (long i = 0; i < IMAGES && !t->bias && !t->rows; i++) {
        const double ratio = norm(t->units, t->y + i * t->units) / norm(t->in, t->x + i * t->in);
        assert_true(ratio <= 1 + 1e-6);
        assert_true(t->units < t->in || ratio >= 1 - 1e-6);
    }
}

static void norms_are_kept_or_shrink(void **state) {
    (void)state;
    for_each_layer(check_norms);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(forward_equals_the_definition),
        cmocka_unit_test(backward_equals_the_definition),
        cmocka_unit_test(image_is_the_factor_times_the_block),
        cmocka_unit_test(stored_weight_is_the_layer),
        cmocka_unit_test(norms_are_kept_or_shrink),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
