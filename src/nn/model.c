#include "nn/model.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- from the configuration ---- */

bcop_status bcop_model_entry(const bcop_node *entry, const bcop_layer_kind **kind,
                             const bcop_node **options) {
    const bool bare = entry->type == BCOP_NODE_SCALAR && entry->text[0];
    if (!bare && (entry->type != BCOP_NODE_MAP || entry->count != 1))
        return bcop_config_fail(entry, "must be one layer, e.g. `conv: {channels: 16, kernel: 3}`");
    const char *name = bare ? entry->text : entry->child[0]->key;
    *options = bare ? NULL : entry->child[0];
    const char *names[64] = {0};
    for (int i = 0; bcop_layer_kinds[i]; i++) {
        names[i] = bcop_layer_kinds[i]->name;
        if (strcmp(name, names[i]) == 0) {
            *kind = bcop_layer_kinds[i];
            return BCOP_OK;
        }
    }
    const char *near = bcop_config_suggest(name, names);
    return bcop_config_fail(bare ? entry : entry->child[0], "unknown layer '%s'%s%s%s", name,
                            near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static bcop_status create_layer(const bcop_node *entry, int index, bcop_shape in,
                                bcop_layer *layer) {
    const bcop_node *options;
    BCOP_TRY(bcop_model_entry(entry, &layer->kind, &options));
    const bcop_layer_kind *kind = layer->kind;
    layer->where = options ? options : entry;
    layer->index = index;
    layer->in = in;
    snprintf(layer->name, sizeof layer->name, "%02d-%s", index, kind->name);
    layer->options = calloc(1, kind->options_size + 1);
    layer->state = calloc(1, kind->state_size + 1);
    if (!layer->options || !layer->state)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory for layer %s", layer->name);
    BCOP_TRY(bcop_option_read(options, entry, kind->name, 1,
                              &(bcop_options){kind->options, layer->options}));
    return kind->plan(layer);
}

static bcop_status read_input(bcop_model *model, const bcop_node *input, const bcop_reals *mean,
                              const bcop_reals *std) {
    const int channels = model->in.channels;
    if ((mean->count != 1 && mean->count != channels) ||
        (std->count != 1 && std->count != channels))
        return bcop_config_fail(input, "mean and std need one number or %d, one per channel",
                                channels);
    model->mean = calloc((size_t)channels, sizeof *model->mean);
    model->inverse_std = calloc((size_t)channels, sizeof *model->inverse_std);
    if (!model->mean || !model->inverse_std)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory for the model");
    for (int c = 0; c < channels; c++) {
        model->mean[c] = (float)mean->value[mean->count == 1 ? 0 : c];
        model->inverse_std[c] = (float)(1 / std->value[std->count == 1 ? 0 : c]);
        model->normalised |= model->mean[c] != 0 || model->inverse_std[c] != 1;
    }
    return BCOP_OK;
}

static bcop_status create(bcop_model *m, const bcop_node *list, const bcop_node *input,
                          const bcop_reals *mean, const bcop_reals *std, int batch) {
    if (list->type != BCOP_NODE_LIST || list->count == 0)
        return bcop_config_fail(list, "must be a list of layers");
    if (list->count > 100)
        return bcop_config_fail(list, "at most 100 layers (got %d)", list->count);
    m->layer = calloc((size_t)list->count, sizeof *m->layer);
    m->parameter = calloc((size_t)list->count * BCOP_LAYER_PARAMETERS_MAX, sizeof *m->parameter);
    m->left = calloc(3 * (size_t)list->count, sizeof *m->left);
    if (!m->layer || !m->parameter || !m->left)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory for the model");
    m->right = m->left + list->count;
    m->saved = m->right + list->count;
    BCOP_TRY(read_input(m, input, mean, std));
    bcop_shape shape = m->in;
    for (; m->count < list->count; m->count++) {
        bcop_layer *layer = &m->layer[m->count];
        layer->batch = batch;
        const bcop_status status = create_layer(list->child[m->count], m->count, shape, layer);
        if (status != BCOP_OK) {
            m->count++; /* so that what it has is freed */
            return status;
        }
        shape = layer->out;
        layer->lane_at = m->lane_length;
        m->lane_length += layer->lane_gradient;
        for (int p = 0; p < layer->parameters; p++)
            m->parameter[m->parameters++] = &layer->parameter[p];
    }
    const bcop_layer *last = &m->layer[m->count - 1];
    if (bcop_shape_size(last->out) != m->classes)
        return bcop_config_fail(last->where, "gives %ld outputs for %d classes of labels",
                                bcop_shape_size(last->out), m->classes);
    return BCOP_OK;
}

bcop_status bcop_model_create(const bcop_node *list, const bcop_node *input, const bcop_reals *mean,
                              const bcop_reals *std, bcop_shape in, int classes, int batch,
                              bcop_model **model) {
    bcop_model *m = calloc(1, sizeof *m);
    if (!m)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory for the model");
    m->in = in;
    m->classes = classes;
    const bcop_status status = create(m, list, input, mean, std, batch);
    if (status != BCOP_OK) {
        bcop_model_free(m);
        return status;
    }
    *model = m;
    return BCOP_OK;
}

void bcop_model_free(bcop_model *m) {
    if (!m)
        return;
    for (int i = 0; i < m->count; i++) {
        free(m->layer[i].options);
        free(m->layer[i].state);
    }
    free(m->layer);
    free(m->parameter);
    free(m->left);
    free(m->mean);
    free(m->inverse_std);
    free(m);
}

/* ---- memory ---- */

static long larger(long a, long b) {
    return a > b ? a : b;
}

void bcop_model_plan(bcop_model *m, int run, bool training, bcop_arena *arena) {
    m->run = run;
    m->training = training;
    long activation = bcop_shape_size(m->in), scratch = 0, bound = 0;
    for (int i = 0; i < m->count; i++) {
        bcop_layer *layer = &m->layer[i];
        const bcop_layer_kind *kind = layer->kind;
        for (int p = 0; !training && p < layer->parameters; p++)
            layer->parameter[p].value =
                bcop_arena_floats(arena, bcop_parameter_size(&layer->parameter[p]));
        if (kind->take)
            kind->take(layer, training, arena);
        m->saved[i] = bcop_arena_floats(arena, run * layer->saved);
        if (layer->factored && !training) {
            m->left[i] = bcop_arena_floats(arena, (long)run * layer->parameter[0].rows);
            m->right[i] = bcop_arena_floats(arena, (long)run * layer->parameter[0].cols);
        }
        activation = larger(activation, bcop_shape_size(layer->out));
        scratch = larger(scratch, kind->scratch ? kind->scratch(layer, run) : 0);
        bound = larger(bound, layer->bound_work);
    }
    m->buffer[0] = bcop_arena_floats(arena, run * activation);
    m->buffer[1] = bcop_arena_floats(arena, run * activation);
    m->scratch = bcop_arena_floats(arena, scratch);
    m->bound_work = bcop_arena_take(arena, bound, sizeof(double));
}

/* ---- running it ---- */

void bcop_model_build(bcop_model *m) {
    for (int i = 0; i < m->count; i++)
        if (m->layer[i].kind->build)
            m->layer[i].kind->build(&m->layer[i]);
}

static bcop_tape tape_of(const bcop_model *m, int i, int row) {
    const bcop_layer *layer = &m->layer[i];
    bcop_tape tape = {.saved = m->saved[i]};
    if (layer->factored) {
        tape.left = m->left[i] + (long)row * layer->parameter[0].rows;
        tape.right = m->right[i] + (long)row * layer->parameter[0].cols;
    }
    return tape;
}

static void normalise(const bcop_model *m, int n, const float *x, float *y) {
    const int channels = m->in.channels;
    const long pixels = (long)n * m->in.height * m->in.width;
    for (long p = 0; p < pixels; p++)
        for (int c = 0; c < channels; c++)
            y[p * channels + c] = (x[p * channels + c] - m->mean[c]) * m->inverse_std[c];
}

const float *bcop_model_forward(bcop_model *m, int n, int row, const float *x) {
    int side = 0; /* the buffer to write next */
    if (m->normalised || m->layer[0].kind->in_place) {
        normalise(m, n, x, m->buffer[0]);
        x = m->buffer[0];
        side = 1;
    }
    for (int i = 0; i < m->count; i++) {
        const bcop_layer *layer = &m->layer[i];
        const bcop_tape tape = tape_of(m, i, row);
        if (layer->kind->in_place)
            side = 1 - side;
        float *y = m->buffer[side];
        layer->kind->forward(layer, n, x, y, &tape, m->scratch);
        x = y;
        side = 1 - side;
    }
    return x;
}

void bcop_model_backward(bcop_model *m, int n, int row, const float *gz, float *lane_gradient,
                         bcop_model_hook *done, void *context) {
    int side = 0; /* the buffer that holds the gradient of the layer's output */
    memcpy(m->buffer[0], gz, (size_t)n * (size_t)m->classes * sizeof *gz);
    for (int i = m->count - 1; i >= 0; i--) {
        const bcop_layer *layer = &m->layer[i];
        const bcop_tape tape = tape_of(m, i, row);
        float *gy = m->buffer[side];
        float *gx = layer->kind->in_place ? gy : m->buffer[1 - side];
        layer->kind->backward(layer, n, &tape, gy, i > 0 ? gx : NULL,
                              lane_gradient + layer->lane_at, m->scratch);
        if (done && layer->parameters > 0)
            done(context, i);
        if (!layer->kind->in_place)
            side = 1 - side;
    }
}

/* ---- the constant ---- */

double bcop_model_input_scale(const bcop_model *m) {
    double scale = 0;
    for (int c = 0; c < m->in.channels; c++)
        scale = fmax(scale, fabs((double)m->inverse_std[c]));
    return scale;
}

double bcop_model_bound(const bcop_model *m, double *layer_bound) {
    double product = bcop_model_input_scale(m);
    for (int i = 0; i < m->count; i++) {
        const bcop_layer_kind *kind = m->layer[i].kind;
        const double bound = kind->bound ? kind->bound(&m->layer[i], m->bound_work) : 1;
        if (layer_bound)
            layer_bound[i] = bound;
        product *= bound * (1 + 2 * DBL_EPSILON);
    }
    return product;
}
