#include "app/bench_step.h"

#include "app/bench_timing.h"
#include "app/configuration.h"
#include "base/clock.h"
#include "base/host.h"
#include "base/log.h"
#include "train/samedata.h"
#include "train/worker.h"

#include <math.h>
#include <stdlib.h>

typedef struct run {
    bcop_bench_task *task;
    const bcop_experiment *experiment;
    bcop_worker_data data;
    bcop_worker worker;
    bcop_prefetch *prefetch;
    double *seconds; /* [BCOP_PHASES + 1][steps], owned; the last is the whole step */
    double iterations;
    double memory;     /* bytes that the net and its steps added to this process */
    bcop_traffic sent; /* in all measured steps */
} run;

static bcop_status set_up(run *r) {
    const bcop_comm *comm = r->task->comm;
    BCOP_TRY(bcop_comm_agree(comm, bcop_worker_open_data(r->experiment, &r->data)));
    r->memory = -(double)bcop_host_memory();
    for (int split = 0; split < 3; split++)
        BCOP_TRY(bcop_samedata_check(comm, r->data.split[split], (bcop_split)split));
    BCOP_TRY(bcop_worker_open(&r->worker, comm, r->experiment, &r->data));
    BCOP_TRY(bcop_worker_reserve(&r->worker));
    bcop_status status =
        bcop_stage_initialise(&r->worker.stage, (uint64_t)r->experiment->root.seed);
    r->seconds = calloc((BCOP_PHASES + 1) * (size_t)r->task->steps, sizeof *r->seconds);
    if (status == BCOP_OK && !r->seconds)
        status = bcop_status_fail(BCOP_INTERNAL, "out of memory for %d steps", r->task->steps);
    if (status == BCOP_OK)
        status = bcop_worker_prefetch(&r->worker, 0, &r->prefetch);
    BCOP_TRY(bcop_comm_agree(comm, status));
    bcop_model_build(r->worker.model);
    return BCOP_OK;
}

static void tear_down(run *r) {
    bcop_prefetch_close(r->prefetch);
    bcop_worker_close(&r->worker);
    bcop_worker_close_data(&r->data);
    free(r->seconds);
}

static bcop_status take_steps(run *r) {
    const bcop_experiment *e = r->experiment;
    const int warmup = r->task->warmup, steps = r->task->steps;
    const long per_epoch = bcop_dataset_count(r->data.split[BCOP_SPLIT_TRAIN]) / e->train.batch;
    bcop_traffic before = {0};
    for (int i = 0; i < warmup + steps; i++) {
        if (i == warmup)
            before = bcop_traffic_read();
        bcop_batch batch;
        bcop_worker_flags flags = {0};
        const double begin = bcop_clock_seconds();
        bcop_prefetch_next(r->prefetch, &batch);
        const double factor =
            bcop_schedule_factor(&e->schedule, i, per_epoch * e->train.epochs, per_epoch);
        BCOP_TRY(bcop_worker_step(&r->worker, i + 1, factor, batch.x, batch.label, &flags));
        if (i < warmup)
            continue;
        for (int p = 0; p < BCOP_PHASES; p++)
            r->seconds[p * steps + i - warmup] = r->worker.seconds[p];
        r->seconds[BCOP_PHASES * steps + i - warmup] = bcop_clock_seconds() - begin;
        r->iterations += r->worker.iterations;
    }
    r->memory += (double)bcop_host_memory();
    const bcop_traffic after = bcop_traffic_read();
    for (int k = 0; k < BCOP_TRAFFIC_KINDS; k++) {
        r->sent.messages[k] = after.messages[k] - before.messages[k];
        r->sent.bytes[k] = after.bytes[k] - before.bytes[k];
    }
    return BCOP_OK;
}

/* ---- telling ---- */

static void report_phases(const run *r, json_t *json) {
    const int steps = r->task->steps;
    double median[BCOP_PHASES + 1];
    for (int p = 0; p <= BCOP_PHASES; p++)
        median[p] = 1e3 * bcop_bench_timing_median(steps, r->seconds + p * steps);
    bcop_log_info("one step of %s on %d ranks, medians of %d steps of the slowest rank",
                  r->experiment->root.name, r->task->comm->size, steps);
    json_t *phases = json_object();
    for (int p = 0; p < BCOP_PHASES; p++) {
        bcop_log_info("  %-10s %10.3f ms", bcop_worker_phase((bcop_phase)p), median[p]);
        json_object_set_new(phases, bcop_worker_phase((bcop_phase)p),
                            json_pack("{s:f}", "median_ms", median[p]));
    }
    const double images = 1e3 * r->experiment->train.batch / median[BCOP_PHASES];
    bcop_log_info("  %-10s %10.3f ms   %.0f images/s, %.2f Bjorck iterations", "step",
                  median[BCOP_PHASES], images, r->iterations / steps);
    json_object_set_new(json, "phases", phases);
    json_object_set_new(json, "step", json_pack("{s:f}", "median_ms", median[BCOP_PHASES]));
    json_object_set_new(json, "images_per_second", json_real(images));
    json_object_set_new(json, "iterations", json_real(r->iterations / steps));
    bcop_log_info("  %-10s %10.3f MiB on all ranks, the data apart", "memory",
                  r->memory / (1 << 20));
    json_object_set_new(json, "memory_mib", json_real(r->memory / (1 << 20)));
}

/* The machine of a plan, as this rank showed it: everything that layers do, and everything that an
   update does, for the flops of their products. */
static void calibrate(const run *r) {
    const bcop_worker *w = &r->worker;
    const int steps = r->task->steps, iterations = (int)lround(r->iterations / steps);
    const long images = w->exchange.row[w->comm->rank + 1] - w->exchange.row[w->comm->rank];
    double compute = 0, update = 0;
    for (int i = 0; i < w->model->count; i++)
        compute += bcop_worker_flops(&w->model->layer[i]) * (double)images;
    for (int i = 0; i < w->stage.count; i++)
        update += bcop_stage_flops(&w->stage, i, iterations);
    double *seconds = r->seconds;
    r->task->machine.gemm_gflops =
        1e-9 * compute / bcop_bench_timing_median(steps, seconds + BCOP_PHASE_COMPUTE * steps);
    r->task->machine.ortho_gflops =
        1e-9 * update / bcop_bench_timing_median(steps, seconds + BCOP_PHASE_UPDATE * steps);
}

/* sent[ranks][kinds]: bytes and messages of a step, to a table and to JSON. */
static void report_traffic(const run *r, const double *bytes, const double *messages,
                           json_t *json) {
    json_t *ranks = json_array();
    for (int rank = 0; rank < r->task->comm->size; rank++) {
        json_t *kinds = json_object();
        for (int k = 0; k < BCOP_TRAFFIC_KINDS; k++) {
            const double b = bytes[rank * BCOP_TRAFFIC_KINDS + k] / r->task->steps;
            const double m = messages[rank * BCOP_TRAFFIC_KINDS + k] / r->task->steps;
            json_object_set_new(kinds, bcop_traffic_name((bcop_traffic_kind)k),
                                json_pack("{s:f, s:f}", "bytes", b, "messages", m));
            if (b > 0)
                bcop_log_info("  rank %d sends %12.0f bytes in %6.1f messages: %s", rank, b, m,
                              bcop_traffic_name((bcop_traffic_kind)k));
        }
        json_array_append_new(ranks, kinds);
    }
    json_object_set_new(json, "traffic", ranks);
}

static bcop_status report(run *r) {
    const bcop_comm *comm = r->task->comm;
    const int steps = r->task->steps;
    for (int i = 0; i < (BCOP_PHASES + 1) * steps; i++)
        r->seconds[i] = bcop_comm_max(comm, r->seconds[i]);
    const size_t cells = (size_t)comm->size * BCOP_TRAFFIC_KINDS;
    double *sent = calloc(2 * cells + (size_t)comm->size, sizeof *sent);
    BCOP_TRY(bcop_comm_agree(
        comm, sent ? BCOP_OK
                   : bcop_status_fail(BCOP_INTERNAL, "out of memory for %d ranks", comm->size)));
    for (int k = 0; k < BCOP_TRAFFIC_KINDS; k++) {
        sent[comm->rank * BCOP_TRAFFIC_KINDS + k] = (double)r->sent.bytes[k];
        sent[cells + (size_t)(comm->rank * BCOP_TRAFFIC_KINDS + k)] = (double)r->sent.messages[k];
    }
    sent[2 * cells + (size_t)comm->rank] = r->memory;
    bcop_comm_merge(comm, sent, 2 * (long)cells + comm->size);
    r->memory = 0;
    for (int rank = 0; rank < comm->size; rank++)
        r->memory += sent[2 * cells + (size_t)rank];
    if (comm->rank == 0) {
        json_t *json = json_object();
        report_phases(r, json);
        report_traffic(r, sent, sent + cells, json);
        calibrate(r);
        json_object_update(r->task->json, json);
        json_decref(json);
    }
    free(sent);
    return BCOP_OK;
}

bcop_status bcop_bench_step_run(bcop_bench_task *task) {
    bcop_experiment experiment;
    BCOP_TRY(bcop_configuration_read(task->comm, task->config, task->set, &experiment));
    run r = {.task = task, .experiment = &experiment};
    bcop_status status = set_up(&r);
    if (status == BCOP_OK)
        status = take_steps(&r);
    if (status == BCOP_OK)
        status = report(&r);
    tear_down(&r);
    bcop_experiment_free(&experiment);
    return status;
}
