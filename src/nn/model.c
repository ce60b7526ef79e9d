#include "nn/model.h"

#include "base/spans.h"

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

static bcop_status check_last(const bcop_model *m) {
    const bcop_layer *last = &m->layer[m->count - 1];
    for (const bcop_layer *layer = m->layer; layer < last; layer++)
        if (layer->normalised)
            return bcop_config_fail(layer->where,
                                    "only the last layer may be normalised: rows of unit norm do "
                                    "not make it 1-Lipschitz");
    if (bcop_shape_size(last->out) != m->classes)
        return bcop_config_fail(last->where, "gives %ld outputs for %d classes of labels",
                                bcop_shape_size(last->out), m->classes);
    return BCOP_OK;
}

static bcop_status list_parameters(bcop_model *m) {
    m->parameter = calloc((size_t)m->parameters + 1, sizeof *m->parameter);
    if (!m->parameter)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory for the model");
    bcop_parameter **next = m->parameter;
    for (int i = 0; i < m->count; i++)
        for (int p = 0; p < m->layer[i].parameters; p++)
            *next++ = &m->layer[i].parameter[p];
    return BCOP_OK;
}

static bcop_status create(bcop_model *m, const bcop_node *list, const bcop_node *input,
                          const bcop_reals *mean, const bcop_reals *std, int batch) {
    if (list->type != BCOP_NODE_LIST || list->count == 0)
        return bcop_config_fail(list, "must be a list of layers");
    if (list->count > 100)
        return bcop_config_fail(list, "at most 100 layers (got %d)", list->count);
    m->layer = calloc((size_t)list->count, sizeof *m->layer);
    m->input = calloc(4 * (size_t)list->count, sizeof *m->input);
    if (!m->layer || !m->input)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory for the model");
    m->slope = m->input + list->count;
    m->image = m->slope + list->count;
    m->saved = m->image + list->count;
    m->tail = list->count;
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
        if (layer->kind->by_rows && m->tail > m->count)
            m->tail = m->count;
        shape = layer->out;
        layer->lane_at = m->lane_length;
        m->lane_length += layer->lane_gradient;
        m->parameters += layer->parameters;
    }
    BCOP_TRY(check_last(m));
    return list_parameters(m);
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
        free(m->layer[i].parameter);
        free(m->layer[i].options);
        free(m->layer[i].state);
    }
    free(m->layer);
    free(m->parameter);
    free(m->input);
    free(m->mean);
    free(m->inverse_std);
    free(m);
}

/* ---- memory ---- */

int bcop_model_group(int run, int images) {
    const int runs = (BCOP_MODEL_GROUP + run - 1) / run;
    return runs * run < images ? runs * run : images;
}

static long larger(long a, long b) {
    return a > b ? a : b;
}

static bool in_tail(const bcop_model *m, int i) {
    return i >= m->tail;
}

static void take_layer(bcop_model *m, int i, bcop_arena *arena) {
    bcop_layer *layer = &m->layer[i];
    layer->run = m->run;
    layer->group = m->group;
    for (int p = 0; !m->training && p < layer->parameters; p++)
        layer->parameter[p].value =
            bcop_arena_floats(arena, bcop_parameter_size(&layer->parameter[p]));
    if (layer->kind->take)
        layer->kind->take(layer, m->training, arena);
    m->saved[i] = bcop_arena_borrow_floats(arena, m->group * layer->saved);
    if (m->training && in_tail(m, i) && layer->parameters > 0 && !layer->factored)
        m->slope[i] = bcop_arena_borrow_floats(arena, m->group * bcop_shape_size(layer->out));
}

void bcop_model_plan(bcop_model *m, int run, int group, bool training, bcop_arena *arena) {
    m->run = run;
    m->group = group;
    m->training = training;
    long narrow = m->tail > 0 ? bcop_shape_size(m->in) : 0, wide = m->classes, scratch = 0,
         bound = 0;
    bcop_arena_turn(arena);
    for (int i = 0; i < m->count; i++) {
        bcop_layer *layer = &m->layer[i];
        const int images = in_tail(m, i) ? group : run;
        take_layer(m, i, arena);
        if (in_tail(m, i))
            wide = larger(wide, bcop_shape_size(layer->in));
        else
            narrow = larger(narrow, bcop_shape_size(layer->out));
        scratch = larger(scratch, layer->kind->scratch ? layer->kind->scratch(layer, images) : 0);
        bound = larger(bound, layer->bound_work);
    }
    for (int side = 0; side < 2; side++) {
        m->narrow[side] = bcop_arena_borrow_floats(arena, run * narrow);
        m->wide[side] = bcop_arena_borrow_floats(arena, group * wide);
    }
    m->scratch = bcop_arena_borrow_floats(arena, scratch);
    bcop_arena_turn(arena);
    m->bound_work = bcop_arena_borrow(arena, bound, sizeof(double));
}

/* ---- running it ---- */

void bcop_model_build(bcop_model *m) {
    for (int i = 0; i < m->count; i++) {
        bcop_layer *layer = &m->layer[i];
        if (!layer->kind->build)
            continue;
        const double began = bcop_spans_begin();
        layer->kind->build(layer);
        bcop_spans_end("build", layer->name, began, layer->build_flops);
    }
}

/* `first` counts images of the group, `row` those of all factors. */
static bcop_tape tape_of(const bcop_model *m, int i, int row, int first) {
    const bcop_layer *layer = &m->layer[i];
    bcop_tape tape = {.saved = m->saved[i] + first * layer->saved, .first = first};
    if (layer->factored) {
        tape.input = m->input[i] + (row + first) * bcop_shape_size(layer->in);
        tape.image = m->image[i] + (long)(row + first) * layer->parameter[0].cols;
    }
    return tape;
}

static float *slope_of(const bcop_model *m, int i, int row, int first) {
    const bcop_layer *layer = &m->layer[i];
    return m->slope[i] + ((layer->factored ? row : 0) + first) * bcop_shape_size(layer->out);
}

static void normalise(const bcop_model *m, int n, const float *x, float *y) {
    const int channels = m->in.channels;
    const long pixels = (long)n * m->in.height * m->in.width;
    for (long p = 0; p < pixels; p++)
        for (int c = 0; c < channels; c++)
            y[p * channels + c] = (x[p * channels + c] - m->mean[c]) * m->inverse_std[c];
}

/* Layers begin .. end - 1 for n images from `first` of the group on; the result stands in one of
   the buffers, or at `last` unless that is NULL. */
static const float *forward_layers(bcop_model *m, int begin, int end, int n, int row, int first,
                                   const float *x, float *const buffer[2], float *last) {
    int landing = end - 1; /* who writes at `last`: all after it are in place */
    while (landing >= begin && m->layer[landing].kind->in_place)
        landing--;
    int side = x == buffer[0];
    if (begin == 0 && (m->normalised || m->layer[0].kind->in_place)) {
        float *y = last && landing < begin ? last : buffer[side];
        normalise(m, n, x, y);
        x = y;
        side = 1 - side;
    }
    for (int i = begin; i < end; i++) {
        const bcop_layer *layer = &m->layer[i];
        const bcop_tape tape = tape_of(m, i, row, first);
        float *y = layer->kind->in_place ? (float *)x : last && i >= landing ? last : buffer[side];
        const double began = bcop_spans_begin();
        layer->kind->forward(layer, n, x, y, &tape, m->scratch);
        bcop_spans_end("forward", layer->name, began, n * layer->flops);
        x = y;
        if (!layer->kind->in_place)
            side = 1 - side;
    }
    return x;
}

const float *bcop_model_forward(bcop_model *m, int n, int row, const float *x) {
    const long in = bcop_shape_size(m->in);
    const bool whole = m->tail == 0; /* no head */
    const long out = whole ? in : bcop_shape_size(m->layer[m->tail - 1].out);
    float *head = m->wide[0];
    for (int done = 0; !whole && done < n; done += m->run)
        forward_layers(m, 0, m->tail, n - done < m->run ? n - done : m->run, row, done,
                       x + done * in, m->narrow, head + done * out);
    return forward_layers(m, m->tail, m->count, n, row, 0, whole ? x : head, m->wide, NULL);
}

static void backward(const bcop_model *m, const bcop_layer *layer, int n, const bcop_tape *tape,
                     float *gy, float *gx) {
    const double began = bcop_spans_begin();
    layer->kind->backward(layer, n, tape, gy, gx, m->scratch);
    bcop_spans_end("backward", layer->name, began, n * (layer->flops - layer->slope_share));
}

void bcop_model_backward(bcop_model *m, int n, int row, const float *gz) {
    int side = 0; /* the buffer that holds the gradient of the layer's output */
    memcpy(m->wide[0], gz, (size_t)n * (size_t)m->classes * sizeof *gz);
    for (int i = m->count - 1; i >= m->tail; i--) {
        const bcop_layer *layer = &m->layer[i];
        const bcop_tape tape = tape_of(m, i, row, 0);
        float *gy = m->wide[side];
        if (layer->parameters > 0)
            memcpy(slope_of(m, i, row, 0), gy,
                   (size_t)(n * bcop_shape_size(layer->out)) * sizeof *gy);
        if (i == 0 && (!layer->factored || layer->input_left))
            break; /* nobody wants it */
        float *gx = layer->kind->in_place ? gy : m->wide[1 - side];
        backward(m, layer, n, &tape, gy, gx);
        if (!layer->kind->in_place)
            side = 1 - side;
    }
    m->head_gradient = m->wide[side];
}

void bcop_model_run(bcop_model *m, int n, int row, int first, float *lane_gradient,
                    bcop_model_hook *done, void *context) {
    int side = 0; /* the buffer to write next */
    float *gy = NULL;
    for (int i = m->count - 1; i >= 0; i--) {
        const bcop_layer *layer = &m->layer[i];
        const bcop_tape tape = tape_of(m, i, row, first);
        if (i == m->tail - 1)
            gy = m->head_gradient + first * bcop_shape_size(layer->out);
        if (layer->parameters > 0) {
            const double began = bcop_spans_begin();
            layer->kind->slope(layer, n, &tape, in_tail(m, i) ? slope_of(m, i, row, first) : gy,
                               lane_gradient + layer->lane_at, m->scratch);
            bcop_spans_end("slope", layer->name, began,
                           layer->factored ? 0 : n * (layer->flops + layer->slope_share));
            if (done)
                done(context, i);
        }
        if (in_tail(m, i) || i == 0)
            continue;
        float *gx = layer->kind->in_place ? gy : m->narrow[side];
        backward(m, layer, n, &tape, gy, gx);
        if (!layer->kind->in_place)
            side = 1 - side;
        gy = gx;
    }
}

/* Back through the layers end - 1 .. begin for the gradient of their input alone, for n images from
   `first` of the group on; it stands in one of the buffers, or at gy. */
static float *backward_layers(bcop_model *m, int begin, int end, int n, int first, float *gy,
                              float *const buffer[2]) {
    for (int i = end - 1; i >= begin; i--) {
        const bcop_layer *layer = &m->layer[i];
        bcop_tape tape = tape_of(m, i, 0, first);
        tape.input_only = true;
        float *gx = layer->kind->in_place ? gy : buffer[gy == buffer[0]];
        layer->kind->backward(layer, n, &tape, gy, gx, m->scratch);
        gy = gx;
    }
    return gy;
}

void bcop_model_backward_input(bcop_model *m, int n, const float *gz, float *gx) {
    const long in = bcop_shape_size(m->in);
    const int runs = m->tail > 0 ? m->run : n; /* no head: nothing left to do in runs */
    const long out = m->tail > 0 ? bcop_shape_size(m->layer[m->tail - 1].out) : in;
    memcpy(m->wide[0], gz, (size_t)n * (size_t)m->classes * sizeof *gz);
    float *head = backward_layers(m, m->tail, m->count, n, 0, m->wide[0], m->wide);
    for (int done = 0; done < n; done += runs) {
        const int images = n - done < runs ? n - done : runs;
        const float *g = backward_layers(m, 0, m->tail, images, done, head + done * out, m->narrow);
        for (long i = 0; i < images * in; i++)
            gx[done * in + i] = g[i] * m->inverse_std[i % m->in.channels];
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
