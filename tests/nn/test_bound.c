/* run: serial */
#include "nn_fixture.h"
#include "nn_oracle.h"
#include "oracle.h"

#include "base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LAYERS = 200 };

/* One random layer and the norm of its whole dense matrix. */
typedef struct instance {
    bool is_conv, rows; /* rows: normalised, so not orthonormal */
    nn_oracle_conv conv;
    int units;
    char text[96];
    nn_fixture f;
    long stored; /* values of its operator */
} instance;

static int between(bcop_rng *rng, int low, int high) {
    return low + (int)bcop_rng_below(rng, (uint32_t)(high - low + 1));
}

/* Maps of up to 8 x 8 after the stride; the matrix stays below 400 x 400. */
static instance random_conv(bcop_rng *rng) {
    instance t = {.is_conv = true};
    do {
        t.conv.stride = between(rng, 1, 3);
        t.conv.k = between(rng, 1, 5);
        t.conv.zero = between(rng, 0, 1);
        t.conv.channels = between(rng, 1, 12);
        t.conv.in = (bcop_shape){between(rng, 1, 8) * t.conv.stride,
                                 between(rng, 1, 8) * t.conv.stride, between(rng, 1, 7)};
    } while (bcop_shape_size(t.conv.in) > 400 ||
             bcop_shape_size(nn_oracle_conv_out(&t.conv)) > 400);
    snprintf(t.text, sizeof t.text, "[conv: {channels: %d, kernel: %d, stride: %d, pad: %s}]",
             t.conv.channels, t.conv.k * t.conv.stride, t.conv.stride,
             t.conv.zero ? "zero" : "cyclic");
    return t;
}

static instance random_dense(bcop_rng *rng) {
    instance t = {.units = between(rng, 1, 60)};
    t.conv.in = (bcop_shape){between(rng, 1, 4), between(rng, 1, 4), between(rng, 1, 8)};
    t.rows = between(rng, 0, 1);
    snprintf(t.text, sizeof t.text, "[dense: {units: %d, normalize: %s}]", t.units,
             t.rows ? "rows" : "none");
    return t;
}

static instance open_random(int number) {
    bcop_rng rng = bcop_rng_open(1, BCOP_RNG_TEST, 0, (uint64_t)number);
    instance t = number % 4 == 3 ? random_dense(&rng) : random_conv(&rng);
    const long classes = t.is_conv ? bcop_shape_size(nn_oracle_conv_out(&t.conv)) : t.units;
    t.f = nn_fixture_open(
        &(nn_setting){.list = t.text, .in = t.conv.in, .classes = (int)classes, .evaluating = true},
        (uint64_t)number);
    t.stored = 1;
    for (int i = 0; i < t.f.layer->stored_dimensions; i++)
        t.stored *= t.f.layer->stored_size[i];
    return t;
}

static double norm_of(const instance *t) {
    double *stored = nn_fixture_stored(t->f.layer), norm;
    const int in = (int)bcop_shape_size(t->conv.in);
    if (t->is_conv) {
        const int out = (int)bcop_shape_size(nn_oracle_conv_out(&t->conv));
        double *matrix = oracle_doubles((long)in * out);
        nn_oracle_conv_matrix(&t->conv, stored, matrix);
        norm = oracle_norm2(out, in, matrix);
        free(matrix);
    } else {
        norm = oracle_norm2(t->units, in, stored);
    }
    free(stored);
    return norm;
}

/* Of the same kernel, cyclic, on the map extended by k - 1. */
static double extended_norm(const instance *t) {
    nn_oracle_conv cyclic = t->conv;
    cyclic.zero = false;
    cyclic.in.height += (t->conv.k - 1) * t->conv.stride;
    cyclic.in.width += (t->conv.k - 1) * t->conv.stride;
    const int in = (int)bcop_shape_size(cyclic.in);
    const int out = (int)bcop_shape_size(nn_oracle_conv_out(&cyclic));
    double *stored = nn_fixture_stored(t->f.layer), *matrix = oracle_doubles((long)in * out);
    nn_oracle_conv_matrix(&cyclic, stored, matrix);
    const double norm = oracle_norm2(out, in, matrix);
    free(stored);
    free(matrix);
    return norm;
}

static double bound_of(const instance *t) {
    const bcop_layer *layer = t->f.layer;
    double *work = oracle_doubles(layer->bound_work);
    const double bound = layer->kind->bound(layer, work);
    free(work);
    return bound;
}

static void complain(const instance *t, const char *what, double bound, double norm) {
    fail_msg("%s on %d x %d x %d: %s: bound %.17g, norm %.17g", t->text, t->conv.in.height,
             t->conv.in.width, t->conv.in.channels, what, bound, norm);
}

static void expect_above(const instance *t, const char *what, double bound, double norm) {
    if (!(bound >= norm))
        complain(t, what, bound, norm);
}

static void bounds_of_orthonormal_layers(void **state) {
    (void)state;
    int kinds[4] = {0};
    for (int number = 0; number < LAYERS; number++) {
        instance t = open_random(number);
        const double bound = bound_of(&t), norm = norm_of(&t);
        expect_above(&t, "as built", bound, norm);
        if (!t.rows && !(bound <= 1 + 1e-5))
            complain(&t, "as built, not near 1", bound, norm);
        /* zero padding: the norm of the convolution on the extended map, before the crop */
        const double tight = t.conv.zero ? extended_norm(&t) : norm;
        const double loose = t.rows ? pow(60, 1.0 / 16) : 1 + 1e-5;
        if (!(tight >= norm * (1 - 1e-12) && bound >= tight && bound <= tight * loose))
            complain(&t, "as built, not tight", bound, tight);
        kinds[t.is_conv ? (t.conv.zero ? 1 : 0) : 2 + t.rows]++;
        nn_fixture_close(&t.f);
    }
    for (int i = 0; i < 4; i++)
        assert_true(kinds[i] >= (i < 2 ? 40 : 15));
}

/* ---- operators that are not what training makes ---- */

typedef enum change {
    SCALED,
    ONE_ENTRY,
    ALIGNED,
    BLOCKS,
    RANDOM,
    TINY,
    HUGE_VALUES,
    ZERO,
    CHANGES
} change;

static const char *const change_names[] = {
    "scaled by 1.001", "one entry changed", "all entries + 0.01", "blocks not orthonormal",
    "random",          "random * 1e-25",    "random * 1e+15",     "zero"};

static void apply_change(change what, uint64_t seed, long count, float *stored) {
    double *noise = oracle_doubles(count);
    oracle_random(seed, count, noise);
    for (long i = 0; i < count && what == SCALED; i++)
        stored[i] *= 1 + 1e-3F;
    for (long i = 0; i < count && what == ALIGNED; i++)
        stored[i] += 0.01F; /* the change with the largest norm for its size */
    if (what == ONE_ENTRY)
        stored[seed % (uint64_t)count] += 0.3F;
    const double scale = what == TINY ? 1e-25 : what == HUGE_VALUES ? 1e15 : what == ZERO ? 0 : 1;
    for (long i = 0; i < count && what >= RANDOM; i++)
        stored[i] = (float)(scale * noise[i]);
    free(noise);
}

/* What a broken retraction would leave: noise on every block, and the operator made of them. */
static void spoil_blocks(bcop_layer *layer, uint64_t seed) {
    for (int p = 0; p < layer->parameters; p++) {
        bcop_parameter *block = &layer->parameter[p];
        const long size = block->orthonormal ? bcop_parameter_size(block) : 0;
        float *noise = oracle_random_floats(seed + (uint64_t)p, size, 0.1);
        for (long i = 0; i < size; i++)
            block->value[i] += noise[i];
        free(noise);
    }
    if (layer->kind->build)
        layer->kind->build(layer);
}

static void expect_sound(instance *t, change what, uint64_t seed) {
    if (what == BLOCKS)
        spoil_blocks(t->f.layer, seed);
    float *stored = oracle_floats(t->stored);
    t->f.layer->kind->store(t->f.layer, stored);
    apply_change(what, seed, t->stored, stored);
    t->f.layer->kind->load(t->f.layer, stored);
    free(stored);
    const double bound = bound_of(t), norm = norm_of(t);
    expect_above(t, change_names[what], bound, norm);
    /* and useful: ||A||_2 <= ||(A^H A)^4||_F^(1/8) <= m^(1/16) ||A||_2 with m <= 128 */
    const bool near_one = what == SCALED && !t->rows;
    const bool wide =
        (what >= ONE_ENTRY && what <= RANDOM) || what == HUGE_VALUES || (what == SCALED && t->rows);
    if (!t->conv.zero && near_one && !(bound <= norm * 1.02))
        complain(t, change_names[what], bound, norm);
    if (!t->conv.zero && wide && !(bound <= norm * pow(128, 1.0 / 16)))
        complain(t, change_names[what], bound, norm);
}

static void bounds_of_loaded_operators(void **state) {
    (void)state;
    for (int number = 0; number < LAYERS; number++) {
        instance t = open_random(number);
        for (int what = 0; what < CHANGES; what++)
            if (what == number % CHANGES || bcop_shape_size(t.conv.in) < 60)
                expect_sound(&t, (change)what, (uint64_t)number);
        nn_fixture_close(&t.f);
    }
}

/* With one channel the bound is exact, and the kernel cos(2 pi (p i / h + q j / w)) has its norm at
   the frequency (p, q) of the map: no frequency may be left out. */
static void every_frequency_counts(void **state) {
    (void)state;
    instance t = {.is_conv = true,
                  .text = "[conv: {channels: 1, kernel: 5}]",
                  .conv = {.in = {5, 6, 1}, .stride = 1, .k = 5, .channels = 1}};
    t.f = nn_fixture_open(
        &(nn_setting){.list = t.text, .in = t.conv.in, .classes = 30, .evaluating = true}, 1);
    for (int p = 0; p < 5; p++)
        for (int q = 0; q < 6; q++) {
            float wave[25];
            for (int i = 0; i < 25; i++)
                wave[i] = (float)cos(2 * acos(-1) * (p * (i / 5) / 5.0 + q * (i % 5) / 6.0));
            t.f.layer->kind->load(t.f.layer, wave);
            const double bound = bound_of(&t), norm = norm_of(&t);
            expect_above(&t, "wave", bound, norm);
            if (!(bound <= norm * (1 + 1e-9)))
                complain(&t, "wave, not tight", bound, norm);
        }
    nn_fixture_close(&t.f);
}

/* An operator with a NaN or an infinity has no bound. */
static void nothing_bounds_a_nan(void **state) {
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int number = 0; number < 24; number++) {
        instance t = open_random(number);
        float *stored = oracle_floats(t.stored);
        t.f.layer->kind->store(t.f.layer, stored);
        stored[t.stored - 1] = bad[number % 3];
        t.f.layer->kind->load(t.f.layer, stored);
        assert_false(bound_of(&t) < 1e300);
        free(stored);
        nn_fixture_close(&t.f);
    }
}

/* ---- the model ---- */

/* The column of a linear network (biases taken off) for one unit vector, in float64. */
static void apply_linear(const instance *part, int parts, double *x) {
    for (int i = 0; i < parts; i++) {
        const instance *t = &part[i];
        double *stored = nn_fixture_stored(t->f.layer);
        const long out = t->is_conv ? bcop_shape_size(nn_oracle_conv_out(&t->conv)) : t->units;
        double *y = oracle_doubles(out);
        if (t->is_conv)
            nn_oracle_conv_apply(&t->conv, stored, NULL, x, y);
        else
            nn_oracle_dense_apply((int)bcop_shape_size(t->conv.in), t->units, stored, NULL, x, y);
        memcpy(x, y, (size_t)out * sizeof *y);
        free(y);
        free(stored);
    }
}

/* Three layers without activations, as one matrix [outputs][inputs]. */
static double linear_norm(const instance *part, int parts, int in, int out, int most,
                          const double *scale) {
    double *matrix = oracle_doubles((long)in * out), *x = oracle_doubles(most);
    for (int i = 0; i < in; i++) {
        memset(x, 0, (size_t)most * sizeof *x);
        x[i] = scale[i];
        apply_linear(part, parts, x);
        for (int o = 0; o < out; o++)
            matrix[(long)o * in + i] = x[o];
    }
    const double norm = oracle_norm2(out, in, matrix);
    free(matrix);
    free(x);
    return norm;
}

/* Each layer of the network's model moved into an instance of its own, so that the oracle can walk
   them; `damage` spoils one operator. */
static void linear_network(int number, bool damage) {
    bcop_rng rng = bcop_rng_open(2, BCOP_RNG_TEST, 0, (uint64_t)number);
    /* Every fourth loses nothing anywhere: then the bound is what the network does. */
    const bool keeps = number % 4 == 0;
    const int k = between(&rng, 1, 4), c1 = between(&rng, 3, 9);
    const int s = keeps ? 1 : between(&rng, 1, 2), zero = keeps ? 0 : between(&rng, 0, 1);
    const int c2 = keeps ? between(&rng, c1, 9) : between(&rng, 2, 9);
    const bcop_shape in = {2 * between(&rng, 1, 3), 2 * between(&rng, 1, 3), 3};
    const int units = keeps ? in.height * in.width * c2 : between(&rng, 2, 40);
    const bcop_reals mean = {.count = 3, .value = {0.5, 0.25, 0}};
    const bcop_reals std = {.count = 3, .value = {0.5, 0.2, 0.3}};
    char list[256];
    snprintf(list, sizeof list,
             "[conv: {channels: %d, kernel: %d, stride: %d, pad: %s}, conv: {channels: %d, kernel: "
             "3}, dense: {units: %d}]",
             c1, k * s, s, zero ? "zero" : "cyclic", c2, units);
    nn_fixture f = nn_fixture_open(&(nn_setting){.list = list,
                                                 .in = in,
                                                 .classes = units,
                                                 .mean = &mean,
                                                 .std = &std,
                                                 .evaluating = true},
                                   (uint64_t)number);
    instance part[3] = {
        {.is_conv = true, .conv = {in, s, k, c1, zero}},
        {.is_conv = true, .conv = {{in.height / s, in.width / s, c1}, 1, 3, c2, false}},
        {.units = units, .conv = {.in = {in.height / s, in.width / s, c2}}}};
    for (int i = 0; i < 3; i++) {
        part[i].f = f;
        part[i].f.layer = &f.model->layer[i];
    }
    if (damage)
        spoil_blocks(&f.model->layer[number % 3], (uint64_t)number);
    const int inputs = (int)bcop_shape_size(in);
    double *scale = oracle_doubles(inputs);
    for (int i = 0; i < inputs; i++)
        scale[i] = (double)f.model->inverse_std[i / (in.height * in.width)];
    const double norm = linear_norm(part, 3, inputs, units, 9 * inputs, scale);
    const double bound = bcop_model_bound(f.model, NULL);
    if (!(bound >= norm))
        fail_msg("%s: bound %.17g, norm %.17g", list, bound, norm);
    if (keeps && !(bound <= norm * (1 + 1e-5)))
        fail_msg("%s: not tight: bound %.17g, norm %.17g", list, bound, norm);
    free(scale);
    nn_fixture_close(&f);
}

static void linear_networks_end_to_end(void **state) {
    (void)state;
    for (int number = 0; number < 60; number++)
        linear_network(number, number % 2 == 1);
}

static void model_bound_is_the_product(void **state) {
    (void)state;
    const bcop_reals mean = {.count = 3, .value = {0.5, 0.25, 0}};
    const bcop_reals std = {.count = 3, .value = {0.5, 0.2, 0.3}};
    nn_fixture f = nn_fixture_open(
        &(nn_setting){.list = "[conv: {channels: 8, kernel: 4, stride: 2}, maxmin, "
                              "conv: {channels: 6, kernel: 3, pad: zero}, groupsort: {size: 3}, "
                              "dense: {units: 4}]",
                      .in = {8, 8, 3},
                      .classes = 4,
                      .mean = &mean,
                      .std = &std,
                      .evaluating = true},
        5);
    double layer_bound[5], product = 1 / 0.2;
    const double bound = bcop_model_bound(f.model, layer_bound);
    assert_true(bcop_model_bound(f.model, NULL) == bound);
    assert_true(fabs(bcop_model_input_scale(f.model) - 5) <= 1e-6);
    for (int i = 0; i < 5; i++) {
        assert_true(layer_bound[i] >= 1 && layer_bound[i] <= 1 + 1e-5);
        product *= layer_bound[i];
    }
    assert_true(layer_bound[1] == 1 && layer_bound[3] == 1);
    assert_true(fabs(bound / product - 1) <= 1e-7); /* 1/std is a float32 */
    assert_true(bound >= bcop_model_input_scale(f.model));
    nn_fixture_close(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bounds_of_orthonormal_layers),
        cmocka_unit_test(bounds_of_loaded_operators),
        cmocka_unit_test(every_frequency_counts),
        cmocka_unit_test(nothing_bounds_a_nan),
        cmocka_unit_test(linear_networks_end_to_end),
        cmocka_unit_test(model_bound_is_the_product),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
