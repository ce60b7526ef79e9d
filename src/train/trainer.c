#include "train/trainer.h"

#include "base/clock.h"
#include "base/log.h"
#include "comm/lanes.h"
#include "data/prefetch.h"
#include "train/checkpoint.h"
#include "train/evaluate.h"
#include "train/resume.h"
#include "train/rundir.h"
#include "train/samedata.h"
#include "train/stop.h"
#include "train/watchdog.h"

#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct trainer {
    const bcop_comm *comm;
    const bcop_experiment *experiment;
    const bcop_train_request *request;
    char run[BCOP_PATH_MAX];
    bcop_dataset *data[3]; /* by bcop_split; NULL when empty or absent */
    bcop_model *model;
    bcop_stage stage;
    bcop_lanes lanes;
    bcop_checkpoint checkpoint;
    bcop_evaluator evaluator[3];
    bcop_arena arena;
    bcop_prefetch *prefetch;
    bcop_watchdog *watchdog;
    FILE *metrics; /* rank 0 */
    /* A step's record: {loss, correct} of every lane, a flag of every rank, and whether by rank 0's
       clock a checkpoint is due. */
    double *record;
    float *logit_gradient; /* [images per lane][classes] */
    long **factor_offset;  /* [layers][2] of [ranks + 1]: where ranks' factors begin, in floats */
    bcop_progress progress;
    long steps, steps_per_epoch; /* of the whole run, of one epoch */
    double began, saved_at;
    bool save_is_due;
    /* of the last step */
    double loss, accuracy, lr, seconds, typical;
    int iterations;
} trainer;

/* ---- setting up ---- */

static bool has(const trainer *t, bcop_split split) {
    return t->data[split] != NULL;
}

static bcop_status open_data(trainer *t) {
    const bcop_experiment *e = t->experiment;
    BCOP_TRY(
        bcop_dataset_open(&e->data, e->data_options, BCOP_SPLIT_TRAIN, &t->data[BCOP_SPLIT_TRAIN]));
    if (e->data.holdout > 0)
        BCOP_TRY(bcop_dataset_open(&e->data, e->data_options, BCOP_SPLIT_HOLDOUT,
                                   &t->data[BCOP_SPLIT_HOLDOUT]));
    const bcop_status status =
        bcop_dataset_open(&e->data, e->data_options, BCOP_SPLIT_TEST, &t->data[BCOP_SPLIT_TEST]);
    if (status == BCOP_NO_INPUT) /* the test files are wanted only where they are */
        t->data[BCOP_SPLIT_TEST] = NULL;
    else
        BCOP_TRY(status);
    const bcop_dataset *train = t->data[BCOP_SPLIT_TRAIN], *test = t->data[BCOP_SPLIT_TEST];
    if (test && !bcop_shape_equal(bcop_dataset_shape(train), bcop_dataset_shape(test)))
        return bcop_status_fail(BCOP_BAD_DATA, "training and test images differ in shape");
    t->steps_per_epoch = bcop_dataset_count(train) / e->train.batch;
    if (t->steps_per_epoch == 0)
        return bcop_config_fail(bcop_experiment_place(e, "train", "batch"),
                                "%d is more than the %ld training images", e->train.batch,
                                bcop_dataset_count(train));
    t->steps = t->steps_per_epoch * e->train.epochs;
    return BCOP_OK;
}

static void plan(trainer *t) {
    const bcop_experiment *e = t->experiment;
    const int ranks = t->comm->size, run = e->train.batch / e->train.lanes;
    bcop_arena *arena = &t->arena;
    bcop_model_plan(t->model, run, e->train.batch, true, arena);
    bcop_stage_plan(&t->stage, arena);
    bcop_lanes_plan(&t->lanes, t->comm, e->train.lanes, t->model->lane_length, arena);
    float *sums = bcop_arena_floats(arena, bcop_lanes_buffer(&t->lanes));
    if (sums)
        bcop_lanes_attach(&t->lanes, sums);
    bcop_checkpoint_plan(&t->checkpoint, t->comm, t->model, &t->stage, arena);
    for (int split = BCOP_SPLIT_HOLDOUT; split <= BCOP_SPLIT_TEST; split++)
        if (t->data[split]) {
            t->evaluator[split] = (bcop_evaluator){.comm = t->comm,
                                                   .model = t->model,
                                                   .dataset = t->data[split],
                                                   .loss = bcop_experiment_loss(e),
                                                   .loss_options = e->loss_options};
            bcop_evaluate_plan(&t->evaluator[split], arena);
        }
    t->record = bcop_arena_take(arena, 2L * e->train.lanes + ranks + 1, sizeof(double));
    t->logit_gradient = bcop_arena_floats(arena, (long)run * t->model->classes);
    t->factor_offset = bcop_arena_take(arena, 2L * t->model->count, sizeof(long *));
    for (int i = 0; i < 2 * t->model->count; i++) {
        const bcop_layer *layer = &t->model->layer[i / 2];
        const long width = i % 2 ? layer->factor_out : layer->factor_in;
        long *offset = bcop_arena_take(arena, ranks + 1, sizeof(long));
        for (int r = 0; offset && r <= ranks; r++)
            offset[r] = (long)e->train.lanes * r / ranks * run * width;
        if (offset)
            t->factor_offset[i] = offset;
    }
}

static bcop_status build_model(trainer *t) {
    const bcop_experiment *e = t->experiment;
    if (t->comm->size > e->train.lanes)
        return bcop_config_fail(bcop_experiment_place(e, "train", "lanes"),
                                "%d lanes are too few for %d ranks", e->train.lanes, t->comm->size);
    const bcop_dataset *train = t->data[BCOP_SPLIT_TRAIN];
    BCOP_TRY(bcop_model_create(e->model_node, e->input_node, &e->input.mean, &e->input.std,
                               bcop_dataset_shape(train), bcop_dataset_classes(train), &t->model));
    long widest = t->model->lane_length;
    for (int i = 0; i < t->model->count; i++) {
        const bcop_layer *layer = &t->model->layer[i];
        const long width =
            layer->factor_in > layer->factor_out ? layer->factor_in : layer->factor_out;
        widest = widest > width * e->train.batch ? widest : width * e->train.batch;
        for (int p = 0; p < layer->parameters; p++) {
            const long size = bcop_parameter_size(&layer->parameter[p]);
            widest = widest > size ? widest : size;
        }
    }
    if (widest > INT_MAX) /* what one message can count */
        return bcop_config_fail(
            e->model_node, "a message of %ld numbers is too large; use a smaller batch or layer",
            widest);
    return BCOP_OK;
}

static bcop_status take_memory(trainer *t) {
    t->arena.name = "training";
    plan(t);
    BCOP_TRY(bcop_arena_reserve(&t->arena));
    plan(t);
    return BCOP_OK;
}

static bcop_status set_up(trainer *t) {
    BCOP_TRY(bcop_comm_agree(t->comm, open_data(t)));
    for (int split = 0; split < 3; split++)
        BCOP_TRY(bcop_samedata_check(t->comm, t->data[split], (bcop_split)split));
    BCOP_TRY(bcop_comm_agree(t->comm, build_model(t)));
    const bcop_experiment *e = t->experiment;
    const bcop_stage_rule rule = {
        .bjorck = {.tolerance = e->ortho.tolerance, .max_iterations = e->ortho.max_iterations},
        .optimizer = bcop_experiment_optimizer(e),
        .optimizer_options = e->optimizer_options,
        .placement = (bcop_placement)e->ortho.placement,
        .share_above = e->ortho.share_above};
    BCOP_TRY(bcop_stage_open(&t->stage, t->comm, rule, t->model->parameters, t->model->parameter));
    return bcop_comm_agree(t->comm, take_memory(t));
}

static void tear_down(trainer *t) {
    bcop_watchdog_close(t->watchdog);
    bcop_prefetch_close(t->prefetch);
    if (t->metrics)
        fclose(t->metrics);
    bcop_stage_close(&t->stage);
    bcop_model_free(t->model);
    for (int split = 0; split < 3; split++)
        bcop_dataset_close(t->data[split]);
    bcop_arena_free(&t->arena);
}

/* ---- starting ---- */

static bcop_status start_parameters(trainer *t) {
    const bcop_resume resume = {.comm = t->comm,
                                .experiment = t->experiment,
                                .request = t->request,
                                .run = t->run,
                                .data_fingerprint =
                                    bcop_dataset_fingerprint(t->data[BCOP_SPLIT_TRAIN]),
                                .checkpoint = &t->checkpoint,
                                .stage = &t->stage};
    BCOP_TRY(bcop_resume_start(&resume, &t->progress));
    bcop_model_build(t->model);
    return BCOP_OK;
}

/* Rank 0: the run directory, its metrics and its configuration. */
static bcop_status make_run(trainer *t) {
    BCOP_TRY(bcop_rundir_make(t->run));
    bcop_rundir_clean(t->run);
    BCOP_TRY(bcop_rundir_metrics(t->run, t->progress.step, &t->metrics));
    const long best = t->progress.best_step;
    if (best >= 0 && bcop_rundir_linked(t->run, "best") != best &&
        bcop_rundir_older(t->run, best + 1, true) == best)
        BCOP_TRY(bcop_rundir_link(t->run, "best", best)); /* killed before it was linked */
    char *text = bcop_experiment_text(t->experiment);
    if (!text)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory for the configuration");
    const bcop_status status = bcop_rundir_write(t->run, "config.yaml", text);
    free(text);
    BCOP_TRY(status);
    char absolute[PATH_MAX];
    if (!realpath(t->run, absolute))
        return bcop_status_errno(BCOP_IO, "%s", t->run);
    snprintf(t->run, sizeof t->run, "%s", absolute);
    return BCOP_OK;
}

/* The run directory becomes rank 0's, as an absolute path: others may stand in another folder. */
static bcop_status open_run(trainer *t) {
    BCOP_TRY(bcop_comm_agree(t->comm, t->comm->rank == 0 ? make_run(t) : BCOP_OK));
    bcop_comm_broadcast(t->comm, t->run, sizeof t->run, 0);
    return BCOP_OK;
}

static bcop_status start_prefetch(trainer *t) {
    const bcop_experiment *e = t->experiment;
    const long run = e->train.batch / e->train.lanes;
    const bcop_prefetch_plan what = {.dataset = t->data[BCOP_SPLIT_TRAIN],
                                     .augment = (bcop_augment_rule)e->data.augment,
                                     .crop_padding = e->data.crop_padding,
                                     .seed = (uint64_t)e->root.seed,
                                     .batch = e->train.batch,
                                     .first_row = t->lanes.run.first * run,
                                     .rows = t->lanes.run.count * run,
                                     .first_step = t->progress.step};
    return bcop_prefetch_open(&what, &t->prefetch);
}

/* ---- one step ---- */

static void enter(trainer *t, const char *phase) {
    bcop_watchdog_beat(t->watchdog, t->progress.step + 1, phase, t->typical);
}

/* Forward, loss and backward of one lane; its part of the record. */
static void run_lane(trainer *t, int lane, const float *x, const int *label) {
    const bcop_experiment *e = t->experiment;
    const bcop_loss_kind *loss = bcop_experiment_loss(e);
    bcop_model *m = t->model;
    const int row = lane * m->run, classes = m->classes;
    const float *z = bcop_model_forward(m, m->run, row, x);
    double *record = t->record + 2 * lane;
    for (int i = 0; i < m->run; i++) {
        record[0] += loss->evaluate(e->loss_options, classes, z + i * classes, label[i],
                                    1.0 / e->train.batch, t->logit_gradient + i * classes);
        record[1] += bcop_loss_margin(classes, z + i * classes, label[i]) > 0;
    }
    bcop_model_backward(m, m->run, row, t->logit_gradient, bcop_lanes_next(&t->lanes));
    bcop_lanes_push(&t->lanes);
}

/* The sum over lanes of entry `what` of the record, by the lanes' tree. */
static double record_sum(const trainer *t, int what, int first, int count) {
    if (count == 1)
        return t->record[2 * first + what];
    return record_sum(t, what, first, count / 2) +
           record_sum(t, what, first + count / 2, count / 2);
}

static bool time_to_save(const trainer *t) {
    const double minutes = t->experiment->checkpoint.every_minutes;
    return t->comm->rank == 0 && minutes > 0 && bcop_clock_seconds() - t->saved_at > 60 * minutes;
}

static bcop_status out_of_time(const trainer *t) {
    const double limit = t->request->max_seconds;
    const bool over = limit > 0 && bcop_clock_seconds() - t->began > limit;
    return t->comm->rank == 0 && over ? BCOP_INTERRUPTED : bcop_stop_requested();
}

/* The agreement before any state changes: everyone's record and flag. *stop: what was asked of any
   rank. BCOP_DIVERGED when the loss is not finite. */
static bcop_status agree_on_step(trainer *t, bcop_status *stop) {
    const int lanes = t->experiment->train.lanes, ranks = t->comm->size;
    double *flag = t->record + 2 * lanes;
    flag[t->comm->rank] = (double)out_of_time(t);
    flag[ranks] = time_to_save(t);
    bcop_comm_merge(t->comm, t->record, 2L * lanes + ranks + 1);
    t->save_is_due = flag[ranks] > 0;
    *stop = BCOP_OK;
    for (int r = 0; r < ranks; r++)
        if ((int)flag[r] > (int)*stop)
            *stop = (bcop_status)(int)flag[r];
    t->loss = record_sum(t, 0, 0, lanes) / t->experiment->train.batch;
    t->accuracy = record_sum(t, 1, 0, lanes) / t->experiment->train.batch;
    if (!isfinite(t->loss))
        return bcop_status_fail(BCOP_DIVERGED, "step %ld: the loss is not finite",
                                t->progress.step + 1);
    return BCOP_OK;
}

static void gather_factors(trainer *t) {
    for (int i = 0; i < t->model->count; i++)
        if (t->model->layer[i].factor_in) {
            bcop_comm_gather_floats(t->comm, t->model->input_factor[i], t->factor_offset[2 * i]);
            bcop_comm_gather_floats(t->comm, t->model->output_factor[i],
                                    t->factor_offset[2 * i + 1]);
        }
}

static bcop_status take_step(trainer *t, bcop_status *stop) {
    const bcop_experiment *e = t->experiment;
    bcop_batch batch;
    enter(t, "reading the batch");
    bcop_prefetch_next(t->prefetch, &batch);
    memset(t->record, 0, (2 * (size_t)e->train.lanes + (size_t)t->comm->size + 1) * sizeof(double));
    bcop_lanes_start(&t->lanes);
    const long images = t->model->run, size = bcop_shape_size(t->model->in);
    enter(t, "forward and backward");
    for (int i = 0; i < t->lanes.run.count; i++) {
        run_lane(t, t->lanes.run.first + i, batch.x + i * images * size, batch.label + i * images);
        enter(t, "forward and backward");
    }
    enter(t, "agreeing on the step");
    BCOP_TRY(agree_on_step(t, stop));
    enter(t, "summing the gradients");
    const float *sums = bcop_lanes_finish(&t->lanes);
    gather_factors(t);
    bcop_model_pull(t->model, sums);
    const double factor =
        bcop_schedule_factor(&e->schedule, t->progress.step, t->steps, t->steps_per_epoch);
    t->lr = e->optimizer.lr * factor;
    enter(t, "updating the blocks");
    BCOP_TRY(bcop_stage_update(&t->stage, t->lr, e->optimizer.bias_lr * factor,
                               t->progress.step + 1, &t->iterations));
    bcop_model_build(t->model);
    t->progress.step++;
    t->progress.epoch = t->progress.step / t->steps_per_epoch;
    return BCOP_OK;
}

/* ---- reporting, evaluating, saving ---- */

static void report_step(trainer *t) {
    const bcop_experiment *e = t->experiment;
    const long step = t->progress.step;
    t->typical = t->typical > 0 ? 0.98 * t->typical + 0.02 * t->seconds : t->seconds;
    if (t->comm->rank != 0)
        return;
    fprintf(t->metrics,
            "{\"kind\":\"train\",\"step\":%ld,\"epoch\":%ld,\"loss\":%.9g,\"accuracy\":%.9g,"
            "\"lr\":%.9g,\"iterations\":%d,\"images_per_second\":%.6g}\n",
            step, t->progress.epoch, t->loss, t->accuracy, t->lr, t->iterations,
            e->train.batch / t->seconds);
    const long left = (long)((double)(t->steps - step) * t->typical);
    bcop_log_progress("epoch %ld/%d  step %ld/%ld  loss %.4f  accuracy %.3f  %.0f images/s  "
                      "%ld:%02ld:%02ld left",
                      (step - 1) / t->steps_per_epoch + 1, e->train.epochs, step, t->steps, t->loss,
                      t->accuracy, e->train.batch / t->typical, left / 3600, left / 60 % 60,
                      left % 60);
}

static void report_evaluation(const trainer *t, bcop_split split, const bcop_evaluation *v) {
    if (t->comm->rank != 0)
        return;
    const bcop_reals *eps = &t->experiment->evaluate.eps;
    char certified[1024] = "";
    fprintf(t->metrics,
            "{\"kind\":\"eval\",\"step\":%ld,\"epoch\":%ld,\"split\":\"%s\",\"examples\":%ld,"
            "\"loss\":%.17g,\"clean\":%.17g,\"certified\":{",
            t->progress.step, t->progress.epoch, bcop_dataset_split_name(split), v->examples,
            v->loss, v->clean);
    for (int i = 0, used = 0; i < eps->count; i++) {
        fprintf(t->metrics, "%s\"%s\":%.17g", i ? "," : "", eps->text[i], v->certified[i]);
        if (used < (int)sizeof certified - 64)
            used += snprintf(certified + used, sizeof certified - (size_t)used,
                             "  certified at %s %.4f", eps->text[i], v->certified[i]);
    }
    fprintf(t->metrics, "},\"lipschitz\":%.17g}\n", v->lipschitz);
    fflush(t->metrics);
    bcop_log_info("epoch %ld  %s (%ld images): loss %.4f  clean %.4f%s  Lipschitz bound %.7f",
                  t->progress.epoch, bcop_dataset_split_name(split), v->examples, v->loss, v->clean,
                  certified, v->lipschitz);
}

/* True when the evaluation is the best so far: highest certified at the last eps, then clean, then
   the later step. */
static bool is_best(trainer *t, const bcop_evaluation *v) {
    bcop_progress *p = &t->progress;
    const double certified = v->certified[t->experiment->evaluate.eps.count - 1];
    if (p->best_step >= 0 && (certified < p->best_certified ||
                              (certified == p->best_certified && v->clean < p->best_clean)))
        return false;
    p->best_step = p->step;
    p->best_certified = certified;
    p->best_clean = v->clean;
    return true;
}

static void keep_awake(void *context, bool long_work) {
    enter(context, long_work ? NULL : "evaluation");
}

static void evaluate(trainer *t, bcop_split split, bcop_evaluation *v) {
    enter(t, "evaluation");
    bcop_evaluate_run(&t->evaluator[split], &t->experiment->evaluate.eps, v, keep_awake, t);
    report_evaluation(t, split, v);
}

/* Before the checkpoint that counts on them. */
static bcop_status sync_metrics(const trainer *t) {
    if (fflush(t->metrics) != 0 || fsync(fileno(t->metrics)) != 0)
        return bcop_status_errno(BCOP_IO, "%s/metrics.jsonl", t->run);
    return BCOP_OK;
}

static bcop_status save(trainer *t) {
    enter(t, "writing a checkpoint");
    BCOP_TRY(bcop_comm_agree(t->comm, t->comm->rank == 0 ? sync_metrics(t) : BCOP_OK));
    const uint64_t fingerprint = bcop_dataset_fingerprint(t->data[BCOP_SPLIT_TRAIN]);
    BCOP_TRY(
        bcop_checkpoint_write(&t->checkpoint, t->experiment, t->run, &t->progress, fingerprint));
    bcop_status status = BCOP_OK;
    if (t->comm->rank == 0) {
        /* Without a hold-out there is nothing to choose by: best is the latest. */
        const bool best = t->progress.best_step == t->progress.step || !has(t, BCOP_SPLIT_HOLDOUT);
        if (best)
            status = bcop_rundir_link(t->run, "best", t->progress.step);
        bcop_rundir_prune(t->run, t->experiment->checkpoint.keep);
    }
    t->saved_at = bcop_clock_seconds();
    return bcop_comm_agree(t->comm, status);
}

static bool divides(int every, long epoch) {
    return every > 0 && epoch % every == 0;
}

/* After the last step of an epoch: evaluation, then the checkpoint. *saved: one was written. */
static bcop_status end_epoch(trainer *t, bool *saved) {
    const bcop_experiment *e = t->experiment;
    const bool end = t->progress.step == t->steps;
    const bcop_split split = has(t, BCOP_SPLIT_HOLDOUT) ? BCOP_SPLIT_HOLDOUT : BCOP_SPLIT_TEST;
    bool best = false;
    bcop_evaluation v;
    if (has(t, split) && (end || divides(e->evaluate.every, t->progress.epoch))) {
        evaluate(t, split, &v);
        best = split == BCOP_SPLIT_HOLDOUT && is_best(t, &v);
    }
    if (end && split != BCOP_SPLIT_TEST && has(t, BCOP_SPLIT_TEST))
        evaluate(t, BCOP_SPLIT_TEST, &v);
    *saved = end || best || divides(e->checkpoint.every_epochs, t->progress.epoch);
    return *saved ? save(t) : BCOP_OK;
}

/* ---- the run ---- */

static bcop_status train(trainer *t, long last) {
    while (t->progress.step < last) {
        const double start = bcop_clock_seconds();
        bcop_status stop;
        BCOP_TRY(take_step(t, &stop));
        t->seconds = bcop_clock_seconds() - start;
        report_step(t);
        bool saved = false;
        if (t->progress.step % t->steps_per_epoch == 0)
            BCOP_TRY(end_epoch(t, &saved));
        const bool ended = stop != BCOP_OK || t->progress.step == last;
        if (!saved && (ended || t->save_is_due))
            BCOP_TRY(save(t));
        if (stop != BCOP_OK && t->progress.step < t->steps)
            return bcop_status_fail(stop, "stopped at step %ld of %ld, checkpoint saved",
                                    t->progress.step, t->steps);
    }
    return BCOP_OK;
}

static bcop_status run(trainer *t) {
    const bcop_experiment *e = t->experiment;
    const bcop_train_request *r = t->request;
    BCOP_TRY(set_up(t));
    BCOP_TRY(start_parameters(t));
    const double bytes = bcop_comm_max(t->comm, (double)t->arena.size);
    bcop_log_info(
        "%s: %ld training images, %ld steps of %d, %d ranks, %d lanes, at most %.1f MiB a rank",
        e->root.name, bcop_dataset_count(t->data[BCOP_SPLIT_TRAIN]), t->steps, e->train.batch,
        t->comm->size, e->train.lanes, bytes / (1 << 20));
    if (r->dry_run) {
        bcop_log_info("dry run: all is well, nothing was written");
        return BCOP_OK;
    }
    const long last = r->max_steps >= 0 && r->max_steps < t->steps ? r->max_steps : t->steps;
    if (t->progress.step >= last) {
        bcop_log_info("%s is already at step %ld of %ld: nothing to do", t->run, t->progress.step,
                      t->steps);
        return BCOP_OK;
    }
    BCOP_TRY(open_run(t));
    BCOP_TRY(bcop_comm_agree(t->comm, start_prefetch(t)));
    BCOP_TRY(bcop_comm_agree(t->comm,
                             bcop_watchdog_open(e->train.watchdog, t->comm->rank, &t->watchdog)));
    t->saved_at = bcop_clock_seconds();
    return train(t, last);
}

bcop_status bcop_trainer_run(const bcop_comm *comm, const bcop_experiment *experiment,
                             const bcop_train_request *request) {
    trainer t = {
        .comm = comm, .experiment = experiment, .request = request, .began = bcop_clock_seconds()};
    if (request->run)
        snprintf(t.run, sizeof t.run, "%s", request->run);
    else
        snprintf(t.run, sizeof t.run, "checkpoints/%s", experiment->root.name);
    bcop_stop_install();
    const bcop_status status = run(&t);
    tear_down(&t);
    return status;
}
