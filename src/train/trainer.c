#include "train/trainer.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/log.h"
#include "train/attempts.h"
#include "train/metrics.h"
#include "train/report.h"
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
    bcop_metrics *metrics;  /* rank 0 */
    long first;             /* step at which this start begins */
    bool works;             /* it has something to do */
    bcop_progress progress;
    long steps, steps_per_epoch; /* of the whole run, of one epoch */
    double began, saved_at;
    double failed_at;            /* when a checkpoint could not be written; 0: the last one could */
    double save_seconds;         /* of the last checkpoint, or a guess */
    double evaluation_seconds;   /* of the last evaluation */
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
    bcop_metrics_close(t->metrics);
    bcop_stop_watch(NULL);
    bcop_runlock_give(t->lock);
    if (t->made_run)
        rmdir(t->run); /* when nothing came of it: a folder with files in it stays */
    bcop_worker_close(&t->worker);
    bcop_worker_close_data(&t->data);
}

/* ---- what is due ---- */

static bool divides(int every, long epoch) {
    return every > 0 && epoch % every == 0;
}

static bool ends_epoch(const trainer *t, long step) {
    return step % t->steps_per_epoch == 0;
}

/* Whether an evaluation stands between this step and the next one (or the end). */
static bool evaluates_at(const trainer *t, long step) {
    const long epoch = step / t->steps_per_epoch;
    return step > 0 && ends_epoch(t, step) &&
           (has(t, BCOP_SPLIT_HOLDOUT) || has(t, BCOP_SPLIT_TEST)) &&
           (step == t->steps || divides(t->experiment->evaluate.every, epoch));
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

/* Rank 0: whether the run's last evaluation was made, if belatedly, and so is in its metrics. */
static bool is_evaluated(const trainer *t) {
    const int wanted = has(t, BCOP_SPLIT_HOLDOUT) + has(t, BCOP_SPLIT_TEST);
    return bcop_metrics_evaluations(t->run, t->steps) >= wanted;
}

/* The last step was made, but the run was stopped before its evaluation. */
static bool only_evaluation_is_left(const trainer *t) {
    bool left = t->progress.step == t->steps && t->progress.evaluated_step < t->steps &&
                evaluates_at(t, t->steps);
    if (left && t->comm->rank == 0)
        left = !is_evaluated(t);
    bcop_comm_broadcast(t->comm, &left, sizeof left, 0);
    return left;
}

/* Rank 0: the line of this start, unless there is nothing to do. */
static bcop_status record_start(trainer *t) {
    const long step = t->progress.step;
    const int limit = t->experiment->checkpoint.max_failures;
    BCOP_TRY(bcop_attempts_read(&t->attempts, t->run, step));
    /* a code that nothing restarts */
    if (t->works && limit > 0 && t->attempts.crashes >= limit)
        return bcop_status_fail(BCOP_CONFIG,
                                "%s: the last %ld starts all failed at step %ld without a new "
                                "checkpoint (attempts.jsonl says how); to start it all the same: "
                                "--set checkpoint.max_failures=0",
                                t->run, t->attempts.crashes, step);
    return t->works ? bcop_attempts_start(&t->attempts, t->comm->size, step, t->steps) : BCOP_OK;
}

/* The run directory becomes rank 0's, as an absolute path (others may stand in another folder), and
   the parameters what they are at the step from which this start goes on. */
static bcop_status start(trainer *t, long last) {
    const bool root = t->comm->rank == 0, writes = !t->request->dry_run;
    BCOP_TRY(bcop_comm_agree(t->comm, root && writes ? take_run(t) : BCOP_OK));
    bcop_comm_broadcast(t->comm, t->run, sizeof t->run, 0);
    /* not before: another host's lock may be watched for longer than ranks may wait */
    BCOP_TRY(bcop_watchdog_open(t->experiment->train.watchdog, t->comm, &t->watchdog));
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
    t->works = t->progress.step < last || only_evaluation_is_left(t);
    return bcop_comm_agree(t->comm, root && writes ? record_start(t) : BCOP_OK);
}

/* Rank 0: `best`, unless it stands already. Without a hold-out there is nothing to choose by: then
   best is the latest. */
static bcop_status link_best(const trainer *t) {
    const long best =
        has(t, BCOP_SPLIT_HOLDOUT) ? t->progress.best_step : bcop_rundir_linked(t->run, "latest");
    if (best < 0 || bcop_rundir_linked(t->run, "best") == best ||
        bcop_rundir_older(t->run, best + 1, true) != best)
        return BCOP_OK;
    return bcop_rundir_link(t->run, "best", best);
}

/* Rank 0: the run's metrics and its configuration. */
static bcop_status open_run(trainer *t) {
    bcop_rundir_clean(t->run);
    BCOP_TRY(bcop_metrics_open(t->run, t->progress.step, t->progress.evaluated_step, &t->metrics));
    BCOP_TRY(link_best(t)); /* killed before that */
    char *text = bcop_experiment_text(t->experiment);
    if (!text)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory for the configuration");
    const bcop_status status = bcop_file_write(t->run, "config.yaml", text, strlen(text));
    free(text);
    bcop_stop_watch(t->run);
    return status;
}

/* ---- one step ---- */

static void enter(trainer *t, bcop_watchdog_phase phase) {
    bcop_watchdog_beat(t->watchdog, t->progress.step + 1, phase);
}

static void entered(void *context, bcop_phase phase) {
    static const bcop_watchdog_phase watched[BCOP_PHASES] = {
        BCOP_WATCHDOG_COMPUTE, BCOP_WATCHDOG_AGREE, BCOP_WATCHDOG_EXCHANGE, BCOP_WATCHDOG_UPDATE,
        BCOP_WATCHDOG_BUILD};
    enter(context, watched[phase]);
}

/* Rank 0: whether a checkpoint is due after the step that begins now. */
static bool time_to_save(const trainer *t) {
    const long step = t->progress.step + 1, epoch = step / t->steps_per_epoch;
    const double now = bcop_clock_seconds(), since = now - t->saved_at;
    const double minutes = t->experiment->checkpoint.every_minutes;
    const double pause = t->experiment->checkpoint.min_seconds;
    if (t->failed_at > 0)
        return now - t->failed_at >= pause;
    if (minutes > 0 && since > 60 * minutes)
        return true;
    return ends_epoch(t, step) && divides(t->experiment->checkpoint.every_epochs, epoch) &&
           since >= pause;
}

/* Rank 0: the limit must leave time for the step that begins now and for a checkpoint; and for one
   more of each when an evaluation is to come, before which there is no other chance to stop. */
static bool is_out_of_time(const trainer *t) {
    const double limit = t->request->max_seconds;
    double needed = 1.5 * t->save_seconds + 2 * t->typical;
    if (evaluates_at(t, t->progress.step + 1))
        needed += t->evaluation_seconds + t->save_seconds + t->typical;
    return limit > 0 && bcop_clock_seconds() - t->began + needed > limit;
}

static bcop_status take_step(trainer *t, bcop_worker_flags *flags) {
    const bcop_experiment *e = t->experiment;
    bcop_batch batch;
    enter(t, BCOP_WATCHDOG_READ);
    bcop_prefetch_next(t->prefetch, &batch);
    const double factor =
        bcop_schedule_factor(&e->schedule, t->progress.step, t->steps, t->steps_per_epoch);
    t->lr = e->optimizer.lr * factor;
    const bool root = t->comm->rank == 0;
    const bcop_status stop = bcop_stop_requested();
    *flags =
        (bcop_worker_flags){stop == BCOP_OK && root && is_out_of_time(t) ? BCOP_INTERRUPTED : stop,
                            root && time_to_save(t)};
    const long step = t->progress.step + 1;
    const bcop_status status =
        bcop_worker_step(&t->worker, step, factor, batch.x, batch.label, flags);
    if (status == BCOP_DIVERGED)
        return bcop_status_fail(status, "step %ld: %s", step, bcop_status_message());
    BCOP_TRY(status);
    t->progress.step++;
    t->progress.epoch = t->progress.step / t->steps_per_epoch;
    return BCOP_OK;
}

/* ---- reporting, evaluating, saving ---- */

static void report_step(trainer *t) {
    t->typical = t->typical > 0 ? 0.98 * t->typical + 0.02 * t->seconds : t->seconds;
    const bcop_report_step_taken taken = {.progress = &t->progress,
                                          .steps = t->steps,
                                          .steps_per_epoch = t->steps_per_epoch,
                                          .loss = t->worker.loss,
                                          .accuracy = t->worker.accuracy,
                                          .lr = t->lr,
                                          .iterations = t->worker.iterations,
                                          .seconds = t->seconds,
                                          .typical = t->typical};
    if (t->comm->rank == 0)
        bcop_report_step(t->metrics, t->experiment, &taken);
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
    enter(context, long_work ? BCOP_WATCHDOG_BOUND : BCOP_WATCHDOG_EVALUATE);
}

static void evaluate(trainer *t, bcop_split split, bcop_evaluation *v) {
    enter(t, BCOP_WATCHDOG_EVALUATE);
    bcop_fault_at(BCOP_FAULT_EVALUATE, NULL);
    bcop_evaluate_run(&t->worker.evaluator[split], &t->experiment->evaluate.eps, v, keep_awake, t);
    if (t->comm->rank == 0)
        bcop_report_evaluation(t->metrics, t->experiment, &t->progress, split, v);
}

/* The evaluations between this step and the next. True: the best so far. */
static bool evaluate_all(trainer *t) {
    const double begin = bcop_clock_seconds();
    const bool chooses = has(t, BCOP_SPLIT_HOLDOUT);
    bcop_evaluation v;
    evaluate(t, chooses ? BCOP_SPLIT_HOLDOUT : BCOP_SPLIT_TEST, &v);
    const bool best = chooses && is_best(t, &v);
    if (t->progress.step == t->steps && chooses && has(t, BCOP_SPLIT_TEST))
        evaluate(t, BCOP_SPLIT_TEST, &v);
    t->progress.evaluated_step = t->progress.step;
    t->evaluation_seconds = bcop_clock_seconds() - begin;
    return best;
}

/* Rank 0: the links, and room for the next; after a checkpoint was committed. */
static bcop_status tidy(const trainer *t) {
    const bcop_experiment *e = t->experiment;
    BCOP_TRY(bcop_rundir_link(t->run, "latest", t->progress.step));
    BCOP_TRY(link_best(t));
    BCOP_TRY(bcop_fault_at(BCOP_FAULT_CKPT_PRUNE, NULL));
    bcop_rundir_prune(t->run, e->checkpoint.keep,
                      e->checkpoint.keep_every_epochs * t->steps_per_epoch);
    return BCOP_OK;
}

/* What the disk does, as opposed to what is wrong with the run. */
static bool is_of_the_disk(bcop_status status) {
    return status == BCOP_IO || status == BCOP_CANNOT_CREATE || status == BCOP_PERMISSION ||
           status == BCOP_NO_INPUT;
}

/* The message says what is on the disk. Links and old checkpoints are not worth a failure: the next
   checkpoint tries them again. */
static bcop_status save(trainer *t) {
    const double begin = bcop_clock_seconds();
    const bool root = t->comm->rank == 0;
    const long step = t->progress.step;
    long bytes = 0;
    bool there = false;
    enter(t, BCOP_WATCHDOG_SAVE);
    bcop_status status = bcop_comm_agree(t->comm, root ? bcop_metrics_sync(t->metrics) : BCOP_OK);
    if (status == BCOP_OK)
        status = bcop_checkpoint_write(&t->worker.checkpoint, t->experiment, t->run, &t->progress,
                                       bcop_dataset_fingerprint(t->data.split[BCOP_SPLIT_TRAIN]),
                                       &bytes, &there);
    if (is_of_the_disk(status))
        return bcop_status_fail(status,
                                there ? "the checkpoint of step %ld may not last: %s"
                                      : "no checkpoint at step %ld: %s",
                                step, bcop_status_message());
    BCOP_TRY(status);
    status = bcop_comm_agree(t->comm, root ? tidy(t) : BCOP_OK);
    t->saved_at = bcop_clock_seconds();
    t->save_seconds = t->saved_at - begin;
    t->failed_at = 0;
    bcop_watchdog_saved(t->watchdog, t->save_seconds);
    bcop_log_info("step %ld saved: %.1f MB in %.2f s", step, (double)bytes / 1e6, t->save_seconds);
    if (!is_of_the_disk(status))
        return status;
    bcop_log_warn("step %ld is saved, but links and older ones are as before: %s", step,
                  bcop_status_message());
    return BCOP_OK;
}

/* A checkpoint in passing: when the disk fails, training goes on and it is tried again later. What
   was the best must be on the disk: `before` is what was known of it. */
static bcop_status try_to_save(trainer *t, const bcop_progress *before) {
    const bcop_status status = save(t);
    if (!is_of_the_disk(status))
        return status;
    bcop_log_warn("%s; training goes on, and it is tried again later", bcop_status_message());
    t->failed_at = bcop_clock_seconds();
    t->progress.best_step = before->best_step;
    t->progress.best_certified = before->best_certified;
    t->progress.best_clean = before->best_clean;
    return BCOP_OK;
}

/* The checkpoint with which this start ends: a failure is an error. */
static bcop_status save_last(trainer *t) {
    const bcop_status status = save(t);
    return is_of_the_disk(status)
               ? bcop_status_fail(BCOP_IO, "%s; older ones are intact", bcop_status_message())
               : status;
}

/* ---- the run ---- */

/* What a checkpoint taken before an evaluation owes: the run was stopped in the last step of an
   epoch. The state is that of the checkpoint, so it need not be written again when it is this
   run's. */
static bcop_status evaluate_belatedly(trainer *t) {
    const bcop_progress before = t->progress;
    if (!evaluates_at(t, t->progress.step) || t->progress.evaluated_step == t->progress.step)
        return BCOP_OK;
    const bool best = evaluate_all(t);
    const bool root = t->comm->rank == 0;
    bool saved = root && bcop_rundir_older(t->run, t->progress.step + 1, true) == t->progress.step;
    bcop_comm_broadcast(t->comm, &saved, sizeof saved, 0);
    if (best && !saved)
        return try_to_save(t, &before);
    bcop_status status = BCOP_OK;
    if (root && best)
        status = link_best(t);
    if (root && status == BCOP_OK)
        status = bcop_metrics_sync(t->metrics);
    return bcop_comm_agree(t->comm, status);
}

/* After a step: evaluation and checkpoint, as they are due. Who is to stop saves at once; the
   evaluation then waits for the next start. */
static bcop_status finish_step(trainer *t, const bcop_worker_flags *flags, long last) {
    const long step = t->progress.step;
    const bcop_progress before = t->progress;
    if (flags->stop != BCOP_OK && (step < t->steps || evaluates_at(t, step))) {
        BCOP_TRY(save_last(t));
        return bcop_status_fail(flags->stop, "stopped at step %ld of %ld, checkpoint saved", step,
                                t->steps);
    }
    const bool best = evaluates_at(t, step) && evaluate_all(t);
    if (step == last)
        return save_last(t);
    return best || flags->save ? try_to_save(t, &before) : BCOP_OK;
}

static bcop_status train(trainer *t, long last) {
    BCOP_TRY(evaluate_belatedly(t));
    while (t->progress.step < last) {
        const double start = bcop_clock_seconds();
        bcop_worker_flags flags;
        BCOP_TRY(take_step(t, &flags));
        t->seconds = bcop_clock_seconds() - start;
        bcop_watchdog_step(t->watchdog, t->seconds);
        report_step(t);
        BCOP_TRY(finish_step(t, &flags, last));
    }
    return BCOP_OK;
}

/* Bytes of a checkpoint over a modest disk's speed, until one was written. */
static double guess_save_seconds(const bcop_checkpoint *c) {
    double bytes = 0;
    for (int i = 0; i < c->count; i++) {
        double size = 4;
        for (int d = 0; d < c->field[i].dimensions; d++)
            size *= (double)c->field[i].size[d];
        bytes += size;
    }
    return 0.5 + bytes / 100e6;
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
    if (!t->works) {
        bcop_log_info("%s is already at step %ld of %ld: nothing to do", t->run, t->progress.step,
                      t->steps);
        return BCOP_OK;
    }
    BCOP_TRY(bcop_comm_agree(t->comm, t->comm->rank == 0 ? open_run(t) : BCOP_OK));
    BCOP_TRY(
        bcop_comm_agree(t->comm, bcop_worker_prefetch(&t->worker, t->progress.step, &t->prefetch)));
    t->worker.entered = entered;
    t->worker.context = t;
    t->saved_at = bcop_clock_seconds();
    t->save_seconds = guess_save_seconds(&t->worker.checkpoint);
    bcop_watchdog_saved(t->watchdog, t->save_seconds);
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
    if (comm->rank == 0 && (status == BCOP_OK || status == BCOP_STOPPED || status == BCOP_IO))
        bcop_stop_obeyed(status == BCOP_OK);
    bcop_attempts_end(&t.attempts, (int)status, t.progress.step, t.progress.step - t.first);
    tear_down(&t);
    return status;
}
