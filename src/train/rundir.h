/* The run directory: config.yaml, metrics.jsonl, step-NNNNNNNN/ and the links
 * `latest` and `best`.
 *
 * All functions are Local; in a run of several ranks rank 0 alone calls them, and the caller agrees
 * on the status. */
#ifndef BCOP_TRAIN_RUNDIR_H
#define BCOP_TRAIN_RUNDIR_H

#include "base/status.h"

#include <stdbool.h>

enum { BCOP_PATH_MAX = 4096 };

/* Makes the directory and its parents. BCOP_CANNOT_CREATE, BCOP_PERMISSION. */
bcop_status bcop_rundir_make(const char *path);

/* What stands in a directory. */
typedef enum bcop_rundir_state {
    BCOP_RUNDIR_FREE,   /* nothing of a run: it may be absent, or hold other files */
    BCOP_RUNDIR_CONFIG, /* a config.yaml and nothing else of a run: somebody's own file */
    BCOP_RUNDIR_RUN     /* metrics or checkpoint folders, valid or not */
} bcop_rundir_state;

bcop_rundir_state bcop_rundir_look(const char *run);

/* The step of the newest checkpoint folder older than `before`, committed (with its manifest) or
 * not; -1 when there is none. */
long bcop_rundir_older(const char *run, long before, bool committed);

/* Whether there is a checkpoint folder that was set aside. */
bool bcop_rundir_has_set_aside(const char *run);

/* Renames a checkpoint folder that is not valid to step-NNNNNNNN.bad (.bad1, ...), out of the way
 * of new ones, and puts the reason into its file REASON. */
bcop_status bcop_rundir_set_aside(const char *run, long step, const char *reason);

/* "RUN/step-00001234"; with `suffix` e.g. "/state.h5" or ".tmp". */
void bcop_rundir_step_path(const char *run, long step, const char *suffix,
                           char path[static BCOP_PATH_MAX]);

/* Points the link RUN/name (`latest`, `best`) at the folder of `step`, atomically. */
bcop_status bcop_rundir_link(const char *run, const char *name, long step);

/* The step that the link RUN/name points at, -1 when there is none. */
long bcop_rundir_linked(const char *run, const char *name);

/* Removes committed checkpoint folders beyond the `keep` newest, never those that `best` and
 * `latest` point at nor, with `multiple` > 0, those whose step it divides. */
void bcop_rundir_prune(const char *run, int keep, long multiple);

/* Removes what attempts that were killed left: step-*.tmp, and files half written. */
void bcop_rundir_clean(const char *run);

/* Resolves what users call CHECKPOINT (a run directory, RUN/best, a step folder, a state.h5) to the
 * folder that holds state.h5. BCOP_NO_INPUT when there is none. */
bcop_status bcop_rundir_resolve(const char *checkpoint, char folder[static BCOP_PATH_MAX]);

/* Removes a checkpoint folder's files and the folder. */
void bcop_rundir_remove(const char *folder);

#endif
