#include "app/bench_conv.h"

#include "app/bench_timing.h"
#include "base/log.h"
#include "base/rng.h"
#include "linalg/product.h"
#include "nn/direct.h"
#include "nn/model.h"
#include "train/worker.h"

#include <stdio.h>
#include <string.h>

/* The layers of configs/cifar10-large.yaml; a test compares them. */
static const char large_net[] = "model:\n"
                                "  - conv: {channels: 32, kernel: 3}\n"
                                "  - maxmin: {}\n"
                                "  - conv: {channels: 32, kernel: 4, stride: 2}\n"
                                "  - maxmin: {}\n"
                                "  - conv: {channels: 64, kernel: 3}\n"
                                "  - maxmin: {}\n"
                                "  - conv: {channels: 64, kernel: 4, stride: 2}\n"
                                "  - maxmin: {}\n"
                                "  - dense: {units: 512}\n"
                                "  - maxmin: {}\n"
                                "  - dense: {units: 512}\n"
                                "  - maxmin: {}\n"
                                "  - dense: {units: 10}\n";

enum {
    BATCH = 128,
    LANE = BATCH / 16, /* images per call, as in training on 16 lanes */
    GROUP = BATCH / 2, /* of layers that go by rows, as on two ranks */
    LAYERS_MAX = 8,
    SQUARE = 512,         /* of the plain product */
    ROUNDS = 1000000,     /* of the peak's */
    COPY_FLOATS = 1 << 24 /* beyond any cache */
};

/* One layer with memory of its own. */
typedef struct subject {
    bcop_layer *layer;
    bcop_tape tape;
    int images;          /* per call */
    float *left, *right; /* of a factored layer: the batch's factors */
    float *x, *y, *gy, *gx, *lane, *scratch;
    double seconds, operator_seconds;
} subject;

typedef struct trial {
    bcop_config *config;
    bcop_model *model;
    int count;
    subject subject[LAYERS_MAX];
    float *square[3], *copy[2];
    bcop_arena arena;
    double square_seconds, copy_seconds, peak_seconds;
    double peak_flops; /* of one run */
    float peak_sink;
} trial;

static bcop_status open_trial(trial *t) {
    const bcop_reals zero = {.count = 1}, one = {.count = 1, .value = {1}};
    *t = (trial){.arena = {.name = "the benchmark"}};
    BCOP_TRY(bcop_config_parse(large_net, sizeof large_net - 1, "bench", &t->config));
    const bcop_node *root = bcop_config_root(t->config);
    BCOP_TRY(bcop_model_create(bcop_config_find(root, "model"), root, &zero, &one,
                               (bcop_shape){32, 32, 3}, 10, BATCH, &t->model));
    for (int i = 0; i < t->model->count && t->count < LAYERS_MAX; i++) {
        bcop_layer *layer = &t->model->layer[i];
        if (layer->parameters > 0)
            t->subject[t->count++] =
                (subject){.layer = layer, .images = layer->kind->by_rows ? GROUP : LANE};
    }
    return BCOP_OK;
}

static void close_trial(trial *t) {
    bcop_arena_free(&t->arena);
    bcop_model_free(t->model);
    bcop_config_free(t->config);
}

static void plan_subject(subject *s, bcop_arena *arena) {
    bcop_layer *layer = s->layer;
    for (int p = 0; p < layer->parameters; p++) {
        layer->parameter[p].value =
            bcop_arena_floats(arena, bcop_parameter_size(&layer->parameter[p]));
        layer->parameter[p].gradient =
            bcop_arena_floats(arena, bcop_parameter_size(&layer->parameter[p]));
    }
    if (layer->kind->take)
        layer->kind->take(layer, true, arena);
    layer->run = LANE;
    s->tape.saved = bcop_arena_floats(arena, s->images * layer->saved);
    if (layer->factored) {
        s->left = bcop_arena_floats(arena, (long)BATCH * layer->parameter[0].rows);
        s->right = bcop_arena_floats(arena, (long)BATCH * layer->parameter[0].cols);
        s->tape.input = layer->input_left ? s->left : s->right;
        s->tape.image = bcop_arena_floats(arena, (long)s->images * layer->parameter[0].cols);
    }
    s->x = bcop_arena_floats(arena, s->images * bcop_shape_size(layer->in));
    s->gx = bcop_arena_floats(arena, s->images * bcop_shape_size(layer->in));
    s->y = bcop_arena_floats(arena, s->images * bcop_shape_size(layer->out));
    s->gy = bcop_arena_floats(arena, s->images * bcop_shape_size(layer->out));
    s->lane = bcop_arena_floats(arena, layer->lane_gradient);
    s->scratch =
        bcop_arena_floats(arena, layer->kind->scratch ? layer->kind->scratch(layer, s->images) : 0);
}

static void plan_trial(trial *t) {
    for (int i = 0; i < t->count; i++)
        plan_subject(&t->subject[i], &t->arena);
    for (int i = 0; i < 3; i++)
        t->square[i] = bcop_arena_floats(&t->arena, (long)SQUARE * SQUARE);
    for (int i = 0; i < 2; i++)
        t->copy[i] = bcop_arena_floats(&t->arena, COPY_FLOATS);
}

static void randomize(bcop_rng *rng, long count, float *x) {
    for (long i = 0; i < count; i++)
        x[i] = (float)(bcop_rng_uniform(rng) - 0.5);
}

/* Small numbers, not orthonormal: what a layer computes with takes no part in the time, as long as
   it stays finite and not denormal. */
static void fill_trial(trial *t) {
    bcop_rng rng = bcop_rng_open(3, BCOP_RNG_INIT, 0, bcop_rng_name("layers"));
    for (int i = 0; i < t->count; i++) {
        subject *s = &t->subject[i];
        bcop_layer *layer = s->layer;
        for (int p = 0; p < layer->parameters; p++)
            randomize(&rng, bcop_parameter_size(&layer->parameter[p]), layer->parameter[p].value);
        randomize(&rng, s->images * bcop_shape_size(layer->in), s->x);
        randomize(&rng, s->images * bcop_shape_size(layer->out), s->gy);
        if (layer->kind->build)
            layer->kind->build(layer);
    }
    for (int i = 0; i < 2; i++) {
        randomize(&rng, (long)SQUARE * SQUARE, t->square[i]);
        memset(t->copy[i], 1, (size_t)COPY_FLOATS * sizeof(float));
    }
}

/* ---- measuring ---- */

/* Forward and backward as in training: nobody wants the gradient of the net's input. */
static bcop_status run_passes(void *of) {
    subject *s = of;
    const bcop_layer_kind *kind = s->layer->kind;
    kind->forward(s->layer, s->images, s->x, s->y, &s->tape, s->scratch);
    for (int i = 0; i < s->images; i += LANE) {
        const bcop_tape tape = {
            .saved = s->tape.saved + i * s->layer->saved,
            .input = s->tape.input ? s->tape.input + i * bcop_shape_size(s->layer->in) : NULL};
        kind->slope(s->layer, LANE, &tape, s->gy + i * bcop_shape_size(s->layer->out), s->lane,
                    s->scratch);
    }
    if (s->layer->index > 0)
        kind->backward(s->layer, s->images, &s->tape, s->gy, s->gx, s->scratch);
    return BCOP_OK;
}

/* Once per step: the operator from the blocks, and its gradient back to them; of a factored layer
   the product of the whole batch's factors. */
static bcop_status run_operator(void *of) {
    subject *s = of;
    bcop_layer *layer = s->layer;
    if (layer->kind->build)
        layer->kind->build(layer);
    layer->kind->pull(layer, s->lane);
    const bcop_parameter *p = &layer->parameter[0];
    if (layer->factored)
        bcop_product_tn(p->rows, p->cols, BATCH, 1, s->left, s->right, 0, p->gradient);
    return BCOP_OK;
}

static bcop_status run_square(void *of) {
    trial *t = of;
    bcop_product_nn(SQUARE, SQUARE, SQUARE, 1, t->square[0], t->square[1], 0, t->square[2]);
    return BCOP_OK;
}

static bcop_status run_peak(void *of) {
    trial *t = of;
    t->peak_sink = 0;
    t->peak_flops = bcop_direct_peak(ROUNDS, &t->peak_sink);
    return BCOP_OK;
}

static bcop_status run_copy(void *of) {
    trial *t = of;
    memcpy(t->copy[1], t->copy[0], (size_t)COPY_FLOATS * sizeof(float));
    return BCOP_OK;
}

static bcop_status measure_trial(trial *t, const bcop_comm *comm) {
    bcop_bench_item item[2 * LAYERS_MAX + 3];
    double *to[2 * LAYERS_MAX + 3];
    int count = 0;
    for (int i = 0; i < t->count; i++) {
        subject *s = &t->subject[i];
        to[count] = &s->seconds;
        item[count++] = (bcop_bench_item){.run = run_passes, .of = s};
        to[count] = &s->operator_seconds;
        item[count++] = (bcop_bench_item){.run = run_operator, .of = s};
    }
    to[count] = &t->square_seconds;
    item[count++] = (bcop_bench_item){.run = run_square, .of = t};
    to[count] = &t->copy_seconds;
    item[count++] = (bcop_bench_item){.run = run_copy, .of = t};
    to[count] = &t->peak_seconds;
    item[count++] = (bcop_bench_item){.run = run_peak, .of = t};
    BCOP_TRY(bcop_bench_timing_run(comm, (bcop_bench_rounds){5, 2, 30, true}, count, item));
    for (int i = 0; i < count; i++)
        *to[i] = item[i].seconds;
    return BCOP_OK;
}

/* ---- saying it ---- */

static int passes(const subject *s) {
    return bcop_worker_passes(s->layer);
}

/* Of all passes over the subject's images. */
static double flops(const subject *s) {
    return bcop_worker_flops(s->layer) * s->images;
}

static void report_subject(const subject *s, json_t *layers) {
    char in[48], out[48], operator_ms[32];
    const bcop_shape a = s->layer->in, b = s->layer->out;
    const double gflops = 1e-9 * flops(s) / s->seconds;
    snprintf(in, sizeof in, "%dx%dx%d", a.height, a.width, a.channels);
    snprintf(out, sizeof out, "%dx%dx%d", b.height, b.width, b.channels);
    snprintf(operator_ms, sizeof operator_ms, "%.3f", 1e3 * s->operator_seconds);
    bcop_log_info("%-12s %-11s %-11s %6d %6d %9.3f %8.1f %9s", s->layer->name, in, out, s->images,
                  passes(s), 1e3 * s->seconds, gflops, operator_ms);
    json_array_append_new(layers,
                          json_pack("{s:s, s:[i,i,i], s:[i,i,i], s:i, s:i, s:f, s:f, s:f}", "layer",
                                    s->layer->name, "in", a.height, a.width, a.channels, "out",
                                    b.height, b.width, b.channels, "images", s->images, "passes",
                                    passes(s), "ms", 1e3 * s->seconds, "gflops", gflops,
                                    "operator_ms", 1e3 * s->operator_seconds));
}

static void report(const trial *t, bcop_bench_task *task) {
    bcop_log_info("conv: layers of the paper's Large net, forward and backward, one core per rank, "
                  "%d rank%s at once, medians.",
                  task->comm->size, task->comm->size > 1 ? "s" : "");
    bcop_log_info("%-12s %-11s %-11s %6s %6s %9s %8s %9s", "layer", "in", "out", "images", "passes",
                  "ms", "GFLOP/s", "operator");
    json_t *layers = json_array();
    double all_flops = 0, all_seconds = 0; /* of one batch */
    for (int i = 0; i < t->count; i++) {
        const subject *s = &t->subject[i];
        report_subject(s, layers);
        all_flops += flops(s) * BATCH / s->images;
        all_seconds += s->seconds * BATCH / s->images;
    }
    const double peak = 1e-9 * t->peak_flops / t->peak_seconds;
    const double square = 2e-9 * SQUARE * SQUARE * SQUARE / t->square_seconds;
    task->machine.gemm_gflops = 1e-9 * all_flops / all_seconds;
    task->machine.copy_gbs = 1e-9 * COPY_FLOATS * sizeof(float) / t->copy_seconds;
    bcop_log_info("(operator: ms once per step, from blocks to taps and the gradient back, or the "
                  "product of a batch's factors)");
    bcop_log_info("all layers, %d images: %.1f ms, %.1f GFLOP/s, %.0f%% of the peak's %.1f; SGEMM "
                  "%d^3: %.1f GFLOP/s; memory copy: %.1f GB/s",
                  BATCH, 1e3 * all_seconds, task->machine.gemm_gflops,
                  100 * task->machine.gemm_gflops / peak, peak, SQUARE, square,
                  task->machine.copy_gbs);
    json_object_set_new(task->json, "conv",
                        json_pack("{s:o, s:i, s:f, s:f, s:f, s:f, s:f}", "layers", layers, "batch",
                                  BATCH, "batch_ms", 1e3 * all_seconds, "layers_gflops",
                                  task->machine.gemm_gflops, "peak_gflops", peak, "sgemm_gflops",
                                  square, "copy_gbs", task->machine.copy_gbs));
}

bcop_status bcop_bench_conv_run(bcop_bench_task *task) {
    trial t;
    bcop_status status = open_trial(&t);
    if (status == BCOP_OK) {
        plan_trial(&t);
        status = bcop_arena_reserve(&t.arena);
    }
    status = bcop_comm_agree(task->comm, status);
    if (status == BCOP_OK) {
        plan_trial(&t);
        fill_trial(&t);
        status = measure_trial(&t, task->comm);
    }
    if (status == BCOP_OK && task->comm->rank == 0)
        report(&t, task);
    close_trial(&t);
    return status;
}
