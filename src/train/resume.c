#include "train/resume.h"

#include "base/clock.h"
#include "base/log.h"
#include "train/compatible.h"
#include "train/rundir.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum source { SOURCE_NONE, SOURCE_OWN, SOURCE_OTHER, SOURCE_PARAMETERS } source;

typedef struct decision {
    source source;
    long step; /* of an own checkpoint */
    char folder[BCOP_PATH_MAX];
} decision;

/* Whether the launcher starts this run again, with the arguments of its first start. */
static bool is_restart(void) {
    const char *text = getenv("BCOP_RESTART");
    return text && strcmp(text, "1") == 0;
}

/* Rank 0. */
static bcop_status decide(const bcop_resume *r, decision *d) {
    const bcop_train_request *q = r->request;
    const bcop_rundir_state state = bcop_rundir_look(r->run);
    if (state == BCOP_RUNDIR_CONFIG)
        return bcop_status_fail(BCOP_CANNOT_CREATE,
                                "%s: holds a config.yaml of its own, which a run would replace",
                                r->run);
    if (state == BCOP_RUNDIR_RUN && q->resume != BCOP_RESUME_AUTO && !is_restart())
        return bcop_status_fail(BCOP_CANNOT_CREATE,
                                "%s: holds a run; give another folder with --run, or continue it "
                                "with --resume auto",
                                r->run);
    d->step = bcop_rundir_older(r->run, LONG_MAX, true);
    if (d->step >= 0) {
        d->source = SOURCE_OWN;
        bcop_rundir_step_path(r->run, d->step, "", d->folder);
        if (q->init_from)
            bcop_log_warn("%s: continues its own run; --init-from is not used", r->run);
        return BCOP_OK;
    }
    if (bcop_rundir_older(r->run, LONG_MAX, false) >= 0 || bcop_rundir_has_set_aside(r->run))
        return bcop_status_fail(BCOP_BAD_DATA,
                                "%s: has checkpoint folders, but none is valid; to start anew give "
                                "another folder with --run, or move the step-* away",
                                r->run);
    if (q->resume == BCOP_RESUME_FILE || q->init_from) {
        d->source = q->init_from ? SOURCE_PARAMETERS : SOURCE_OTHER;
        return bcop_rundir_resolve(q->init_from ? q->init_from : q->resume_file, d->folder);
    }
    if (state == BCOP_RUNDIR_RUN)
        bcop_log_info("%s: no checkpoint was committed yet; starting at step 0", r->run);
    return BCOP_OK;
}

static bcop_status check(const bcop_resume *r, const bcop_snapshot *s,
                         const bcop_experiment *then) {
    BCOP_TRY(bcop_compatible_check(r->experiment, then));
    if (s->has_manifest && s->manifest.data_fingerprint != r->data_fingerprint)
        return bcop_status_fail(BCOP_BAD_DATA,
                                "the training data changed: fingerprint %016llx, the checkpoint "
                                "was trained on %016llx",
                                (unsigned long long)r->data_fingerprint,
                                (unsigned long long)s->manifest.data_fingerprint);
    return BCOP_OK;
}

static void warn_of(const char *what, const char *then, const char *now) {
    if (strcmp(then, now) != 0)
        bcop_log_warn(
            "the checkpoint was written with %s '%s', this is '%s': what follows may differ "
            "in the last bits",
            what, then, now);
}

/* The same bits are promised on one type of CPU, build of BLAS and number of threads only. */
static void compare_machine(const bcop_resume *r, const bcop_manifest_origin *then) {
    const bcop_manifest_origin now = bcop_checkpoint_origin(r->comm);
    char threads[2][16];
    snprintf(threads[0], sizeof threads[0], "%d", then->threads);
    snprintf(threads[1], sizeof threads[1], "%d", now.threads);
    warn_of("CPU", then->cpu, now.cpu);
    warn_of("BLAS", then->blas, now.blas);
    warn_of("threads per rank", threads[0], threads[1]);
}

/* Reads the checkpoint of the decision. *damaged: the failure is the files' own, so that another
   checkpoint may do. */
static bcop_status load(const bcop_resume *r, const decision *d, bcop_progress *progress,
                        bool *damaged) {
    bcop_snapshot snapshot;
    bcop_experiment then;
    const double begin = bcop_clock_seconds();
    *damaged = true;
    BCOP_TRY(bcop_checkpoint_open(r->comm, d->folder, &snapshot, &then));
    const bool whole = d->source != SOURCE_PARAMETERS;
    bcop_status status = whole ? bcop_comm_agree(r->comm, check(r, &snapshot, &then)) : BCOP_OK;
    *damaged = status == BCOP_OK;
    if (status == BCOP_OK)
        status = bcop_checkpoint_load(r->checkpoint, &snapshot,
                                      BCOP_PART_BIAS | BCOP_PART_BLOCK |
                                          (whole ? BCOP_PART_OPTIMIZER : 0u));
    if (status == BCOP_OK && whole) {
        const bcop_reals *a = &r->experiment->evaluate.eps, *b = &then.evaluate.eps;
        *progress = snapshot.progress;
        /* `best` is this run's, at this radius */
        if (d->source != SOURCE_OWN || a->value[a->count - 1] != b->value[b->count - 1])
            progress->best_step = -1;
    }
    if (status == BCOP_OK && whole && snapshot.has_manifest)
        compare_machine(r, &snapshot.manifest.origin);
    if (status == BCOP_OK)
        bcop_log_info("%s %s (step %ld, read and verified in %.2f s)",
                      whole ? "continuing from" : "parameters from", d->folder,
                      snapshot.progress.step, bcop_clock_seconds() - begin);
    bcop_experiment_free(&then);
    bcop_checkpoint_close(&snapshot);
    return status;
}

enum { REASONS_MAX = 16 };

/* Rank 0: why checkpoints were not used. */
typedef struct reasons {
    int count;
    long step[REASONS_MAX];
    char text[REASONS_MAX][1024];
} reasons;

static void note(reasons *all, long step) {
    if (all->count < REASONS_MAX) {
        snprintf(all->text[all->count], sizeof all->text[0], "%s\n", bcop_status_message());
        all->step[all->count++] = step;
    }
}

static const char *reason_of(const reasons *all, long step) {
    for (int i = 0; i < all->count; i++)
        if (all->step[i] == step)
            return all->text[i];
    return "it has no " BCOP_MANIFEST_NAME ": it was never committed\n";
}

/* Rank 0: the checkpoint before the damaged one. */
static bcop_status step_back(const bcop_resume *r, decision *d, reasons *all) {
    const long older = bcop_rundir_older(r->run, d->step, true);
    note(all, d->step);
    if (older < 0)
        return bcop_status_fail(BCOP_BAD_DATA, "%s: none of its checkpoints is valid (%s)", r->run,
                                bcop_status_message());
    bcop_log_warn("%s; trying step %ld", bcop_status_message(), older);
    d->step = older;
    bcop_rundir_step_path(r->run, older, "", d->folder);
    return BCOP_OK;
}

/* Rank 0: what is newer than the checkpoint in use goes out of the way. */
static bcop_status set_newer_aside(const bcop_resume *r, long step, const reasons *all) {
    for (long newer; (newer = bcop_rundir_older(r->run, LONG_MAX, false)) > step;)
        BCOP_TRY(bcop_rundir_set_aside(r->run, newer, reason_of(all, newer)));
    return bcop_rundir_link(r->run, "latest", step);
}

bcop_status bcop_resume_start(const bcop_resume *r, bcop_progress *progress) {
    const bool root = r->comm->rank == 0;
    decision d = {.step = -1};
    reasons all = {.count = 0};
    *progress = (bcop_progress){.best_step = -1, .evaluated_step = -1};
    BCOP_TRY(bcop_comm_agree(r->comm, root ? decide(r, &d) : BCOP_OK));
    bcop_comm_broadcast(r->comm, &d, sizeof d, 0);
    if (d.source == SOURCE_NONE)
        return bcop_comm_agree(r->comm,
                               bcop_stage_initialise(r->stage, (uint64_t)r->experiment->root.seed));
    for (;;) {
        bool damaged;
        const bcop_status status = load(r, &d, progress, &damaged);
        if (status == BCOP_OK)
            break;
        const bool unusable = status == BCOP_BAD_DATA || status == BCOP_NO_INPUT;
        if (!damaged || !unusable || d.source != SOURCE_OWN)
            return status;
        BCOP_TRY(bcop_comm_agree(r->comm, root ? step_back(r, &d, &all) : BCOP_OK));
        bcop_comm_broadcast(r->comm, &d, sizeof d, 0);
    }
    const bool tidy = root && d.source == SOURCE_OWN && !r->request->dry_run;
    return bcop_comm_agree(r->comm, tidy ? set_newer_aside(r, d.step, &all) : BCOP_OK);
}
