/* What a run's folder tells from outside: metrics.jsonl, attempts.jsonl, the lock, the checkpoints
 * and the configuration. For commands on login nodes: files are read, none is written or locked. */
#ifndef BCOP_TRAIN_HISTORY_H
#define BCOP_TRAIN_HISTORY_H

#include "base/option.h"
#include "train/rundir.h"

typedef struct bcop_history_step {
    long step, epoch;
    double loss, accuracy, images_per_second;
} bcop_history_step;

typedef struct bcop_history_evaluation {
    long step, epoch, examples;
    char split[16];
    double loss, clean, lipschitz;
    bcop_reals eps;                   /* as typed */
    double certified[BCOP_REALS_MAX]; /* [eps.count] */
} bcop_history_evaluation;

typedef struct bcop_history_attempt {
    long number, pid, ranks, step; /* step: at its start */
    char start[24], host[256];
    char job[64]; /* "" outside of a batch job */
    bool ended;   /* else it runs, or was killed, or its node was lost */
    int code;
    char end[24];
    long end_step, steps; /* steps: taken by it */
} bcop_history_attempt;

typedef struct bcop_history {
    char run[BCOP_PATH_MAX];
    char name[BCOP_TEXT_MAX];
    int batch, epochs;       /* 0 as long as it waits for its first start */
    bcop_history_step *step; /* [steps], owned, like the other lists */
    bcop_history_evaluation *evaluation;
    bcop_history_attempt *attempt;
    long steps, evaluations, attempts;
    long steps_per_epoch, total; /* 0: not known */
    long last_checkpoint;        /* its step; -1: there is none */
    char saved[24];              /* when, "" when its manifest is not readable */
    bool running;                /* the lock is held and young */
    bool stopping;               /* a stop was asked for and is still to be noticed */
} bcop_history;

/* Reads the folder `run`. Lines that were cut are passed over. A folder with a job.sbatch
 * that has no configuration yet is a new run, named as the folder. BCOP_NO_INPUT when it holds no
 * run. To be freed in any case. Local. */
bcop_status bcop_history_read(bcop_history *history, const char *run);
void bcop_history_free(bcop_history *history);

/* "running", "new", "finished", "paused" (--max-steps), "interrupted" (75), "stopped" (79),
 * "failed" (another code) or "killed". */
const char *bcop_history_state(const bcop_history *history);

/* How the attempt ended, for people: "finished", "stopped by a person", ... */
const char *bcop_history_end(const bcop_history *history, const bcop_history_attempt *attempt);

/* The last step of the metrics, and the mean speed of its last 50; 0 without any. */
long bcop_history_last(const bcop_history *history, double *images_per_second);

/* Seconds to the end at that speed, -1 when it is not known. */
double bcop_history_left(const bcop_history *history);

/* The last evaluation of a split ("test", "holdout"), NULL without one. */
const bcop_history_evaluation *bcop_history_evaluated(const bcop_history *history,
                                                      const char *split);

#endif
