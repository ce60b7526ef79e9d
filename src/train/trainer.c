#include "train/trainer.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "train/attempts.h"
#include "train/resume.h"
#include "train/rundir.h"
#include "train/runlock.h"
#include "train/samedata.h"
#include "train/stop.h"
#include "train/watchdog.h"
#include "train/worker.h"

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
    bcop_worker_data data;
    bcop_worker worker;
    bcop_prefetch *prefetch;
    bcop_watchdog *watchdog;
    bool made_run;          /* rank 0: the run directory is new */
    bcop_runlock *lock;     /* rank 0 */
    bcop_attempts attempts; /* rank 0 */
    FILE *metrics;          /* rank 0 */
    long first;             /* step at which this start begins */
    bcop_progress progress;
    long steps, steps_per_epoch; /* of the whole run, of one epoch */
    double began, saved_at;
    double lr, seconds, typical; /* of the last step */
} trainer;

/* ---- setting up ---- */

static bool has(const trainer *t, bcop_split split) {
    return t->data.split[split] != NULL;
}

static bcop_status set_up(trainer *t) {
    BCOP_TRY(bcop_comm_agree(t->comm, bcop_worker_open_data(t->experiment, &t->data)));
    for (int split = 0; split < 3; split++)
        BCOP_TRY(bcop_samedata_check(t->comm, t->data.split[split], (bcop_split)split));
    t->steps_per_epoch =
        bcop_dataset_count(t->data.split[BCOP_SPLIT_TRAIN]) / t->experiment->train.batch;
    t->steps = t->steps_per_epoch * t->experiment->train.epochs;
    BCOP_TRY(bcop_worker_open(&t->worker, t->comm, t->experiment, &t->data));
    return bcop_worker_reserve(&t->worker);
}

static void tear_down(trainer *t) {
    bcop_watchdog_close(t->watchdog);
    bcop_prefetch_close(t->prefetch);
    if (t->metrics)
        fclose(t->metrics);
    bcop_stop_watch(NULL);
    bcop_runlock_give(t->lock);
    if (t->made_run)
        rmdir(t->run); /* when nothing came of it: a folder with files in it stays */
    bcop_worker_close(&t->worker);
    bcop_worker_close_data(&t->data);
}

/* ---- starting ---- */

/* Rank 0: makes the run directory and takes its lock, by an absolute path. */
static bcop_status take_run(trainer *t) {
    char absolute[PATH_MAX];
    t->made_run = access(t->run, F_OK) != 0;
    BCOP_TRY(bcop_rundir_make(t->run));
    if (!realpath(t->run, absolute))
        return bcop_status_errno(BCOP_IO, "%s", t->run);
    if (strlen(absolute) >= sizeof t->run - 64)
        return bcop_status_fail(BCOP_CANNOT_CREATE, "%.80s...: the path is too long", absolute);
    strcpy(t->run, absolute);
    return bcop_runlock_take(t->run, &t->lock);
}

/* Rank 0: the line of this start, unless there is nothing to do. */
static bcop_status record_start(trainer *t, long last) {
    const long step = t->progress.step;
    BCOP_TRY(bcop_attempts_read(&t->attempts, t->run, step));
    return step < last ? bcop_attempts_start(&t->attempts, t->comm->size, step) : BCOP_OK;
}

/* The run directory becomes rank 0's, as an absolute path (others may stand in another folder), and
   the parameters what they are at the step from which this start goes on. */
static bcop_status start(trainer *t, long last) {
    const bool root = t->comm->rank == 0, writes = !t->request->dry_run;
    BCOP_TRY(bcop_comm_agree(t->comm, root && writes ? take_run(t) : BCOP_OK));
    bcop_comm_broadcast(t->comm, t->run, sizeof t->run, 0);
    const bcop_resume resume = {.comm = t->comm,
                                .experiment = t->experiment,
                                .request = t->request,
                                .run = t->run,
                                .data_fingerprint =
                                    bcop_dataset_fingerprint(t->data.split[BCOP_SPLIT_TRAIN]),
                                .checkpoint = &t->worker.checkpoint,
                                .stage = &t->worker.stage};
    BCOP_TRY(bcop_resume_start(&resume, &t->progress));
    t->first = t->progress.step;
    bcop_model_build(t->worker.model);
    bcop_fault_at(BCOP_FAULT_LOAD_DONE, NULL);
    return bcop_comm_agree(t->comm, root && writes ? record_start(t, last) : BCOP_OK);
}

/* Rank 0: the run's metrics and its configuration. */
static bcop_status open_run(trainer *t) {
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
    bcop_stop_watch(t->run);
    return status;
}

/* ---- one step ---- */

static void enter(trainer *t, const char *phase) {
    bcop_watchdog_beat(t->watchdog, t->progress.step + 1, phase, t->typical);
}

static void entered(void *context, bcop_phase phase) {
    static const char *const name[BCOP_PHASES] = {"forward and backward", "agreeing on the step",
                                                  "summing the gradients", "updating the blocks",
                                                  "making the layers' operators"};
    enter(context, name[phase]);
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

static bcop_status take_step(trainer *t, bcop_worker_flags *flags) {
    const bcop_experiment *e = t->experiment;
    bcop_batch batch;
    enter(t, "reading the batch");
    bcop_prefetch_next(t->prefetch, &batch);
    const double factor =
        bcop_schedule_factor(&e->schedule, t->progress.step, t->steps, t->steps_per_epoch);
    t->lr = e->optimizer.lr * factor;
    *flags = (bcop_worker_flags){out_of_time(t), time_to_save(t)};
    BCOP_TRY(
        bcop_worker_step(&t->worker, t->progress.step + 1, factor, batch.x, batch.label, flags));
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
            step, t->progress.epoch, t->worker.loss, t->worker.accuracy, t->lr,
            t->worker.iterations, e->train.batch / t->seconds);
    const long left = (long)((double)(t->steps - step) * t->typical);
    bcop_log_progress("epoch %ld/%d  step %ld/%ld  loss %.4f  accuracy %.3f  %.0f images/s  "
                      "%ld:%02ld:%02ld left",
                      (step - 1) / t->steps_per_epoch + 1, e->train.epochs, step, t->steps,
                      t->worker.loss, t->worker.accuracy, e->train.batch / t->typical, left / 3600,
                      left / 60 % 60, left % 60);
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
    bcop_fault_at(BCOP_FAULT_EVALUATE, NULL);
    bcop_evaluate_run(&t->worker.evaluator[split], &t->experiment->evaluate.eps, v, keep_awake, t);
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
    const uint64_t fingerprint = bcop_dataset_fingerprint(t->data.split[BCOP_SPLIT_TRAIN]);
    BCOP_TRY(bcop_checkpoint_write(&t->worker.checkpoint, t->experiment, t->run, &t->progress,
                                   fingerprint));
    bcop_status status = BCOP_OK;
    if (t->comm->rank == 0) {
        /* Without a hold-out there is nothing to choose by: best is the latest. */
        const bool best = t->progress.best_step == t->progress.step || !has(t, BCOP_SPLIT_HOLDOUT);
        if (best)
            status = bcop_rundir_link(t->run, "best", t->progress.step);
        bcop_fault_at(BCOP_FAULT_CKPT_PRUNE, NULL);
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
        bcop_worker_flags flags;
        BCOP_TRY(take_step(t, &flags));
        t->seconds = bcop_clock_seconds() - start;
        report_step(t);
        bool saved = false;
        if (t->progress.step % t->steps_per_epoch == 0)
            BCOP_TRY(end_epoch(t, &saved));
        const bool ended = flags.stop != BCOP_OK || t->progress.step == last;
        if (!saved && (ended || flags.save))
            BCOP_TRY(save(t));
        if (flags.stop != BCOP_OK && t->progress.step < t->steps)
            return bcop_status_fail(flags.stop, "stopped at step %ld of %ld, checkpoint saved",
                                    t->progress.step, t->steps);
    }
    return BCOP_OK;
}

static bcop_status run(trainer *t) {
    const bcop_experiment *e = t->experiment;
    const bcop_train_request *r = t->request;
    BCOP_TRY(set_up(t));
    const long last = r->max_steps >= 0 && r->max_steps < t->steps ? r->max_steps : t->steps;
    BCOP_TRY(start(t, last));
    const double bytes = bcop_comm_max(t->comm, (double)t->worker.arena.size);
    bcop_log_info(
        "%s: %ld training images, %ld steps of %d, %d ranks, %d lanes, at most %.1f MiB a rank",
        e->root.name, bcop_dataset_count(t->data.split[BCOP_SPLIT_TRAIN]), t->steps, e->train.batch,
        t->comm->size, e->train.lanes, bytes / (1 << 20));
    if (r->dry_run) {
        bcop_log_info("dry run: all is well, nothing was written");
        return BCOP_OK;
    }
    if (t->progress.step >= last) {
        bcop_log_info("%s is already at step %ld of %ld: nothing to do", t->run, t->progress.step,
                      t->steps);
        return BCOP_OK;
    }
    BCOP_TRY(bcop_comm_agree(t->comm, t->comm->rank == 0 ? open_run(t) : BCOP_OK));
    BCOP_TRY(
        bcop_comm_agree(t->comm, bcop_worker_prefetch(&t->worker, t->progress.step, &t->prefetch)));
    BCOP_TRY(bcop_comm_agree(t->comm,
                             bcop_watchdog_open(e->train.watchdog, t->comm->rank, &t->watchdog)));
    t->worker.entered = entered;
    t->worker.context = t;
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
    if (comm->rank == 0 && (status == BCOP_STOPPED || status == BCOP_IO))
        bcop_stop_obeyed();
    bcop_attempts_end(&t.attempts, (int)status, t.progress.step, t.progress.step - t.first);
    tear_down(&t);
    return status;
}
