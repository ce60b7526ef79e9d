#include "train/worker.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/spans.h"
#include "nn/pairs.h"

#include <limits.h>
#include <math.h>
#include <string.h>

/* ---- data ---- */

bcop_status bcop_worker_open_data(const bcop_experiment *e, bcop_worker_data *data) {
    bcop_dataset **split = data->split;
    BCOP_TRY(
        bcop_dataset_open(&e->data, e->data_options, BCOP_SPLIT_TRAIN, &split[BCOP_SPLIT_TRAIN]));
    if (e->data.holdout > 0)
        BCOP_TRY(bcop_dataset_open(&e->data, e->data_options, BCOP_SPLIT_HOLDOUT,
                                   &split[BCOP_SPLIT_HOLDOUT]));
    const bcop_status status =
        bcop_dataset_open(&e->data, e->data_options, BCOP_SPLIT_TEST, &split[BCOP_SPLIT_TEST]);
    if (status == BCOP_NO_INPUT) /* the test files are wanted only where they are */
        split[BCOP_SPLIT_TEST] = NULL;
    else
        BCOP_TRY(status);
    const bcop_dataset *train = split[BCOP_SPLIT_TRAIN], *test = split[BCOP_SPLIT_TEST];
    if (test && !bcop_shape_equal(bcop_dataset_shape(train), bcop_dataset_shape(test)))
        return bcop_status_fail(BCOP_BAD_DATA, "training and test images differ in shape");
    if (bcop_dataset_count(train) < e->train.batch)
        return bcop_config_fail(bcop_experiment_place(e, "train", "batch"),
                                "%d is more than the %ld training images", e->train.batch,
                                bcop_dataset_count(train));
    return BCOP_OK;
}

void bcop_worker_close_data(bcop_worker_data *data) {
    for (int i = 0; i < 3; i++)
        bcop_dataset_close(data->split[i]);
}

/* ---- names ---- */

const char *bcop_worker_phase(bcop_phase phase) {
    static const char *const name[BCOP_PHASES] = {"compute", "agree", "exchange", "update",
                                                  "build"};
    return name[phase];
}

const char *bcop_worker_memory(bcop_memory memory) {
    static const char *const name[BCOP_MEMORIES] = {"model",    "stage",    "state",
                                                    "exchange", "evaluate", "turns"};
    return name[memory];
}

/* ---- building ---- */

/* What one message can count is limited. */
static bcop_status check_messages(const bcop_worker *w) {
    const bcop_model *m = w->model;
    long widest = m->lane_length;
    for (int i = 0; i < m->parameters; i++) {
        const bcop_parameter *p = m->parameter[i];
        const long factor = p->factored ? (long)p->rows * w->experiment->train.batch : 0;
        const long size = bcop_parameter_size(p);
        widest = widest > size ? widest : size;
        widest = widest > factor ? widest : factor;
    }
    if (widest > INT_MAX)
        return bcop_config_fail(
            w->experiment->model_node,
            "a message of %ld numbers is too large; use a smaller batch or layer", widest);
    return BCOP_OK;
}

static bcop_status build_model(bcop_worker *w) {
    const bcop_experiment *e = w->experiment;
    if (w->comm->size > e->train.lanes)
        return bcop_config_fail(bcop_experiment_place(e, "train", "lanes"),
                                "%d lanes are too few for %d ranks", e->train.lanes, w->comm->size);
    if (e->ortho.grid_rows > 0 && w->comm->size > 1 && w->comm->size % e->ortho.grid_rows != 0)
        return bcop_config_fail(bcop_experiment_place(e, "ortho", "grid_rows"),
                                "a grid of %d process rows does not fit %d ranks",
                                e->ortho.grid_rows, w->comm->size);
    const bcop_dataset *train = w->data->split[BCOP_SPLIT_TRAIN];
    BCOP_TRY(bcop_model_create(e->model_node, e->input_node, &e->input.mean, &e->input.std,
                               bcop_dataset_shape(train), bcop_dataset_classes(train),
                               e->train.batch, &w->model));
    return check_messages(w);
}

static void evaluators(bcop_worker *w) {
    const bcop_experiment *e = w->experiment;
    for (int split = BCOP_SPLIT_HOLDOUT; split <= BCOP_SPLIT_TEST; split++)
        if (w->data->split[split]) {
            w->evaluator[split] = (bcop_evaluator){.comm = w->comm,
                                                   .model = w->model,
                                                   .dataset = w->data->split[split],
                                                   .loss = bcop_experiment_loss(e),
                                                   .loss_options = e->loss_options};
            bcop_evaluate_plan(&w->evaluator[split], &w->arena);
        }
}

static long record_length(const bcop_worker *w) {
    return 2L * w->experiment->train.lanes + w->comm->size + 1;
}

static void plan(bcop_worker *w) {
    const bcop_experiment *e = w->experiment;
    const int run = e->train.batch / e->train.lanes;
    bcop_arena *arena = &w->arena;
    size_t mark[BCOP_MEMORIES + 1] = {0};
    const int least = e->train.lanes / w->comm->size; /* lanes that every rank has */
    bcop_model_plan(w->model, run, bcop_model_group(run, least * run), true, arena);
    mark[BCOP_MEMORY_MODEL + 1] = arena->used;
    bcop_stage_plan(&w->stage, arena);
    mark[BCOP_MEMORY_STATE + 1] = arena->used;
    mark[BCOP_MEMORY_STAGE + 1] = arena->used - w->stage.state_bytes;
    bcop_exchange_plan(&w->exchange, arena);
    mark[BCOP_MEMORY_EXCHANGE + 1] = arena->used;
    bcop_checkpoint_plan(&w->checkpoint, w->comm, w->model, &w->stage, arena);
    evaluators(w);
    w->record = bcop_arena_take(arena, record_length(w), sizeof(double));
    w->logit_gradient = bcop_arena_floats(arena, (long)w->model->group * w->model->classes);
    mark[BCOP_MEMORY_EVALUATE + 1] = arena->used;
    mark[BCOP_MEMORY_TURNS + 1] = arena->used + arena->most;
    for (int i = 0; i < BCOP_MEMORIES; i++)
        w->memory[i] = mark[i + 1] - mark[i];
}

bcop_status bcop_worker_open(bcop_worker *w, const bcop_comm *comm, const bcop_experiment *e,
                             const bcop_worker_data *data) {
    *w = (bcop_worker){.comm = comm, .experiment = e, .data = data, .arena = {.name = "training"}};
    BCOP_TRY(bcop_comm_agree(comm, build_model(w)));
    const bcop_stage_rule rule = {
        .bjorck = {.tolerance = e->ortho.tolerance, .max_iterations = e->ortho.max_iterations},
        .optimizer = bcop_experiment_optimizer(e),
        .optimizer_options = e->optimizer_options,
        .placement = {.wanted = (bcop_placement)e->ortho.placement,
                      .share_above = e->ortho.share_above,
                      .grid_above = e->ortho.grid_above,
                      .grid_rows = e->ortho.grid_rows}};
    BCOP_TRY(bcop_stage_open(&w->stage, comm, rule, w->model->parameters, w->model->parameter));
    BCOP_TRY(bcop_comm_agree(comm, bcop_exchange_open(&w->exchange, comm, w->model, &w->stage,
                                                      e->train.lanes, e->train.batch)));
    plan(w);
    return BCOP_OK;
}

bcop_status bcop_worker_reserve(bcop_worker *w) {
    BCOP_TRY(bcop_comm_agree(w->comm, bcop_arena_reserve(&w->arena)));
    plan(w);
    return BCOP_OK;
}

void bcop_worker_close(bcop_worker *w) {
    bcop_exchange_close(&w->exchange);
    bcop_stage_close(&w->stage);
    bcop_model_free(w->model);
    bcop_arena_free(&w->arena);
}

bcop_status bcop_worker_prefetch(const bcop_worker *w, long first, bcop_prefetch **prefetch) {
    const bcop_experiment *e = w->experiment;
    const int *row = w->exchange.row, rank = w->comm->rank;
    const bcop_prefetch_plan what = {.dataset = w->data->split[BCOP_SPLIT_TRAIN],
                                     .augment = (bcop_augment_rule)e->data.augment,
                                     .crop_padding = e->data.crop_padding,
                                     .seed = (uint64_t)e->root.seed,
                                     .batch = e->train.batch,
                                     .first_row = row[rank],
                                     .rows = row[rank + 1] - row[rank],
                                     .first_step = first};
    return bcop_prefetch_open(&what, prefetch);
}

int bcop_worker_passes(const bcop_layer *layer) {
    return 1 + (layer->index > 0) + !layer->factored;
}

double bcop_worker_flops(const bcop_layer *layer) {
    return bcop_worker_passes(layer) * layer->flops + (layer->index > 0 ? 0 : layer->slope_share);
}

/* ---- one step ---- */

static void tell(const bcop_worker *w, bcop_phase phase) {
    if (w->entered)
        w->entered(w->context, phase);
}

/* Ends a phase, and begins another. */
static void turn(bcop_worker *w, bcop_phase ends, bcop_phase begins) {
    const double now = bcop_clock_seconds();
    bcop_spans_end("phase", bcop_worker_phase(ends), w->since, 0);
    w->seconds[ends] = now - w->since;
    w->since = now;
    if (begins < BCOP_PHASES)
        tell(w, begins);
}

/* Logits of the rank's images row .. row + n - 1; their losses by lane into the record. */
static void run_forward(bcop_worker *w, int n, int row, const float *x, const int *label) {
    const bcop_experiment *e = w->experiment;
    const bcop_loss_kind *loss = bcop_experiment_loss(e);
    bcop_model *m = w->model;
    const int classes = m->classes;
    const float *z = bcop_model_forward(m, n, row, x);
    for (int i = 0; i < n; i++) {
        double *record = w->record + 2 * (w->exchange.sums.run.first + (row + i) / m->run);
        record[0] += bcop_pairs_loss(m, i, loss, e->loss_options, z + i * classes, label[i],
                                     1.0 / e->train.batch, w->logit_gradient + i * classes);
        record[1] += bcop_loss_margin(classes, z + i * classes, label[i]) > 0;
    }
}

static void compute(bcop_worker *w, const float *x, const int *label) {
    bcop_model *m = w->model;
    const int images = w->exchange.sums.run.count * m->run;
    const long size = bcop_shape_size(m->in);
    memset(w->record, 0, (size_t)record_length(w) * sizeof *w->record);
    bcop_exchange_start(&w->exchange);
    for (int row = 0; row < images; row += m->group) {
        const int n = images - row < m->group ? images - row : m->group;
        run_forward(w, n, row, x + row * size, label + row);
        bcop_model_backward(m, n, row, w->logit_gradient);
        if (row + n == images)
            bcop_exchange_factors(&w->exchange);
        for (int first = 0; first < n; first += m->run) {
            bcop_model_run(m, m->run, row, first, bcop_exchange_lane(&w->exchange),
                           bcop_exchange_done, &w->exchange);
            bcop_exchange_next(&w->exchange);
            tell(w, BCOP_PHASE_COMPUTE);
        }
    }
}

/* The sum over lanes of entry `what` of the record, by the lanes' tree. */
static double record_sum(const bcop_worker *w, int what, int first, int count) {
    if (count == 1)
        return w->record[2 * first + what];
    return record_sum(w, what, first, count / 2) +
           record_sum(w, what, first + count / 2, count / 2);
}

/* The agreement before any state changes: everyone's record and flags. */
static bcop_status agree(bcop_worker *w, bcop_worker_flags *flags) {
    const int lanes = w->experiment->train.lanes, ranks = w->comm->size;
    double *flag = w->record + 2 * lanes;
    flag[w->comm->rank] = (double)flags->stop;
    flag[ranks] = w->comm->rank == 0 && flags->save;
    const bcop_traffic_kind before = bcop_traffic_label(BCOP_TRAFFIC_RECORD);
    bcop_comm_merge(w->comm, w->record, record_length(w));
    bcop_traffic_label(before);
    *flags = (bcop_worker_flags){BCOP_OK, flag[ranks] > 0};
    for (int r = 0; r < ranks; r++)
        if ((int)flag[r] > (int)flags->stop)
            flags->stop = (bcop_status)(int)flag[r];
    w->loss = record_sum(w, 0, 0, lanes) / w->experiment->train.batch;
    w->accuracy = record_sum(w, 1, 0, lanes) / w->experiment->train.batch;
    if (!isfinite(w->loss))
        return bcop_status_fail(BCOP_DIVERGED, "the loss is not finite");
    return BCOP_OK;
}

/* Where a fault can show itself: the first gradient that this rank holds. */
static float *first_held(const bcop_worker *w) {
    for (int i = 0; i < w->stage.count; i++)
        if (w->stage.entry[i].size > 0)
            return w->stage.entry[i].gradient;
    return NULL;
}

bcop_status bcop_worker_step(bcop_worker *w, long step, double factor, const float *x,
                             const int *label, bcop_worker_flags *flags) {
    const bcop_optimizer_options *o = &w->experiment->optimizer;
    w->since = bcop_clock_seconds();
    tell(w, BCOP_PHASE_COMPUTE);
    bcop_fault_at(BCOP_FAULT_STEP_FORWARD, (float *)x); /* the prefetcher's, as x is const to us */
    compute(w, x, label);
    turn(w, BCOP_PHASE_COMPUTE, BCOP_PHASE_AGREE);
    bcop_fault_at(BCOP_FAULT_STEP_AGREE, NULL);
    const bcop_status status = agree(w, flags);
    turn(w, BCOP_PHASE_AGREE, BCOP_PHASE_EXCHANGE);
    bcop_fault_at(BCOP_FAULT_STEP_EXCHANGE, NULL);
    bcop_exchange_finish(&w->exchange); /* of a failed step too: its messages are on their way */
    BCOP_TRY(status);
    turn(w, BCOP_PHASE_EXCHANGE, BCOP_PHASE_UPDATE);
    bcop_fault_at(BCOP_FAULT_STEP_UPDATE, first_held(w));
    BCOP_TRY(
        bcop_stage_update(&w->stage, o->lr * factor, o->bias_lr * factor, step, &w->iterations));
    turn(w, BCOP_PHASE_UPDATE, BCOP_PHASE_BUILD);
    bcop_fault_at(BCOP_FAULT_STEP_BUILD, NULL);
    bcop_model_build(w->model);
    turn(w, BCOP_PHASE_BUILD, BCOP_PHASES);
    return BCOP_OK;
}

void bcop_worker_list(const bcop_worker *w, int iterations, bcop_traffic_visitor v) {
    if (w->comm->size > 1) {
        v.kind = BCOP_TRAFFIC_RECORD;
        bcop_traffic_tell_group(&v, BCOP_TRAFFIC_REDUCE, w->comm->size,
                                record_length(w) * (long)sizeof(double));
    }
    bcop_exchange_list(&w->exchange, v);
    bcop_stage_list(&w->stage, iterations, v);
}

bcop_traffic bcop_worker_count(const bcop_worker *w, int iterations) {
    bcop_traffic t = {0};
    bcop_worker_list(w, iterations, bcop_traffic_counter(&t));
    return t;
}
