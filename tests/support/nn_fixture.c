#include "nn_fixture.h"

#include "oracle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const bcop_reals zero = {.count = 1}, one = {.count = 1, .value = {1}};

static void check(bcop_status status) {
    if (status != BCOP_OK)
        fail_msg("%s", bcop_status_message());
}

static int rows_of(const nn_setting *s) {
    return s->rows ? s->rows : s->run ? s->run : 1;
}

bcop_status nn_fixture_create(const nn_setting *s, nn_fixture *f) {
    char yaml[1024];
    snprintf(yaml, sizeof yaml, "input: {}\nmodel: %s\n", s->list);
    *f = (nn_fixture){.arena = {.name = "model"}};
    check(bcop_config_parse(yaml, strlen(yaml), "test.yaml", &f->config));
    const bcop_node *root = bcop_config_root(f->config);
    const bcop_status status =
        bcop_model_create(bcop_config_find(root, "model"), bcop_config_find(root, "input"),
                          s->mean ? s->mean : &zero, s->std ? s->std : &one, s->in, s->classes,
                          s->evaluating ? 0
                          : s->batch    ? s->batch
                                        : rows_of(s),
                          &f->model);
    if (status == BCOP_OK)
        f->layer = f->model->layer;
    else
        bcop_config_free(f->config);
    return status;
}

static void fill(bcop_parameter *p, bool training, uint64_t seed) {
    const long size = bcop_parameter_size(p);
    double *value = oracle_doubles(size);
    if (training) {
        p->value = oracle_floats(size);
        p->gradient = oracle_floats(size);
    }
    if (p->orthonormal)
        oracle_random_orthonormal(seed, p->rows, p->cols, value);
    else
        oracle_random(seed, size, value);
    oracle_to_float(size, value, p->value);
    free(value);
}

nn_fixture nn_fixture_open(const nn_setting *s, uint64_t seed) {
    nn_fixture f;
    check(nn_fixture_create(s, &f));
    const int run = s->run ? s->run : 1;
    const int group = s->group ? s->group : run;
    bcop_model_plan(f.model, run, group, !s->evaluating, &f.arena);
    check(bcop_arena_reserve(&f.arena));
    bcop_model_plan(f.model, run, group, !s->evaluating, &f.arena);
    for (int i = 0; !s->evaluating && i < f.model->count; i++)
        if (f.model->layer[i].factored) {
            const bcop_layer *layer = &f.model->layer[i];
            f.model->input[i] = oracle_floats(rows_of(s) * bcop_shape_size(layer->in));
            f.model->slope[i] = oracle_floats(rows_of(s) * bcop_shape_size(layer->out));
            f.model->image[i] = oracle_floats((long)rows_of(s) * layer->parameter[0].cols);
        }
    for (int i = 0; i < f.model->parameters; i++)
        fill(f.model->parameter[i], !s->evaluating, 1000 * seed + (uint64_t)i);
    bcop_model_build(f.model);
    return f;
}

static void free_tape(nn_fixture *f) {
    free(f->tape.saved);
    free(f->tape.input);
    free(f->tape.image);
    free(f->lane);
}

void nn_fixture_close(nn_fixture *f) {
    free_tape(f);
    for (int i = 0; f->model->training && i < f->model->parameters; i++) {
        free(f->model->parameter[i]->value);
        free(f->model->parameter[i]->gradient);
    }
    for (int i = 0; f->model->training && i < f->model->count; i++)
        if (f->model->layer[i].factored) {
            free(f->model->input[i]);
            free(f->model->slope[i]);
            free(f->model->image[i]);
        }
    bcop_model_free(f->model);
    bcop_arena_free(&f->arena);
    bcop_config_free(f->config);
}

double **nn_fixture_parameters(const nn_fixture *f) {
    const int count = f->model->parameters;
    double **copy = malloc(((size_t)count + 1) * sizeof *copy);
    assert_non_null(copy);
    for (int i = 0; i < count; i++) {
        const long size = bcop_parameter_size(f->model->parameter[i]);
        copy[i] = oracle_doubles(size);
        oracle_to_double(size, f->model->parameter[i]->value, copy[i]);
    }
    return copy;
}

void nn_fixture_free_parameters(const nn_fixture *f, double **parameters) {
    for (int i = 0; i < f->model->parameters; i++)
        free(parameters[i]);
    free(parameters);
}

static long stored_size(const bcop_layer *layer) {
    long size = 1;
    for (int i = 0; i < layer->stored_dimensions; i++)
        size *= layer->stored_size[i];
    return size;
}

double *nn_fixture_stored(const bcop_layer *layer) {
    const long size = stored_size(layer);
    float *stored = oracle_floats(size);
    double *copy = oracle_doubles(size);
    layer->kind->store(layer, stored);
    oracle_to_double(size, stored, copy);
    free(stored);
    return copy;
}

void nn_fixture_load(const nn_fixture *from, nn_fixture *to) {
    for (int i = 0; i < from->model->count; i++) {
        const bcop_layer *a = &from->model->layer[i];
        bcop_layer *b = &to->model->layer[i];
        if (!a->kind->stored_name)
            continue;
        float *stored = oracle_floats(stored_size(a));
        a->kind->store(a, stored);
        b->kind->load(b, stored);
        free(stored);
        if (bcop_layer_bias(a))
            memcpy(bcop_layer_bias(b)->value, bcop_layer_bias(a)->value,
                   (size_t)bcop_parameter_size(bcop_layer_bias(a)) * sizeof(float));
    }
}

/* The definition: left^T right over the images. */
static void pull_factors(bcop_layer *layer, int rows, const float *input, const float *slope) {
    const bcop_parameter *p = &layer->parameter[0];
    const float *left = layer->input_left ? input : slope;
    const float *right = layer->input_left ? slope : input;
    for (int i = 0; i < p->rows; i++)
        for (int j = 0; j < p->cols; j++) {
            double sum = 0;
            for (long n = 0; n < rows; n++)
                sum += (double)left[n * p->rows + i] * (double)right[n * p->cols + j];
            p->gradient[(long)i * p->cols + j] = (float)sum;
        }
}

void nn_fixture_pull(nn_fixture *f, int rows, const float *sum) {
    for (int i = 0; i < f->model->count; i++) {
        bcop_layer *layer = &f->model->layer[i];
        if (layer->kind->pull)
            layer->kind->pull(layer, sum + layer->lane_at);
        if (layer->factored)
            pull_factors(layer, rows, f->model->input[i], f->model->slope[i]);
    }
}

static float *make_scratch(const bcop_layer *layer, int n) {
    return oracle_floats(layer->kind->scratch ? layer->kind->scratch(layer, n) : 0);
}

float *nn_fixture_forward(nn_fixture *f, int n, const float *x) {
    bcop_layer *layer = f->layer;
    free_tape(f);
    layer->run = n;
    f->tape = (bcop_tape){.saved = oracle_floats(n * layer->saved)};
    if (layer->factored) {
        f->tape.input = oracle_floats(n * bcop_shape_size(layer->in));
        f->tape.image = oracle_floats((long)n * layer->parameter[0].cols);
    }
    f->lane = oracle_floats(layer->lane_gradient);
    float *y = oracle_floats(n * bcop_shape_size(layer->out)), *scratch = make_scratch(layer, n);
    if (layer->kind->in_place) {
        memcpy(y, x, (size_t)(n * bcop_shape_size(layer->out)) * sizeof *y);
        x = y;
    }
    layer->kind->forward(layer, n, x, y, &f->tape, scratch);
    free(scratch);
    return y;
}

void nn_fixture_backward(nn_fixture *f, int n, const float *gy, float *gx) {
    bcop_layer *layer = f->layer;
    const long size = n * bcop_shape_size(layer->out);
    float *copy = oracle_floats(size), *scratch = make_scratch(layer, n);
    memcpy(copy, gy, (size_t)size * sizeof *copy);
    if (layer->kind->slope)
        layer->kind->slope(layer, n, &f->tape, copy, f->lane, scratch);
    layer->kind->backward(layer, n, &f->tape, copy, layer->kind->in_place ? copy : gx, scratch);
    if (layer->kind->in_place)
        memcpy(gx, copy, (size_t)size * sizeof *copy);
    if (layer->kind->pull)
        layer->kind->pull(layer, f->lane);
    if (layer->factored)
        pull_factors(layer, n, f->tape.input, gy);
    free(scratch);
    free(copy);
}
