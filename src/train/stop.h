/* Requests to stop: from signals, for which only flags are set in handlers, and from the file
 * RUN/stop; the trainer agrees on them once a step.
 *
 * USR1 is the system's (time limit, preemption): exit 75, unless the file named by BCOP_STOP_FILE
 * exists, which is how the launcher says that a person asked. INT, TERM and RUN/stop are a
 * person's: exit 79. A second INT or TERM ends the process at once. In a SLURM job TERM is the
 * system's too: SLURM sends it before it kills for a preemption, a requeue or the time limit. */
#ifndef BCOP_TRAIN_STOP_H
#define BCOP_TRAIN_STOP_H

#include "base/status.h"

#include <stdbool.h>

/* Installs the handlers. Writing to a full pipe's other end or beyond a file size limit becomes an
 * error instead of a signal. Local. */
void bcop_stop_install(void);

/* From now on RUN/stop is looked for too; of one rank, which sees the folder. `run` must live as
 * long; NULL: not any more. Local. */
void bcop_stop_watch(const char *run);

/* BCOP_OK, BCOP_INTERRUPTED or BCOP_STOPPED, as this rank knows it. Looks for the file at most once
 * a second. Local. */
bcop_status bcop_stop_requested(void);

/* Removes RUN/stop when this rank knows of a person's request, which was obeyed, or when the run
 * has come to its end and there is nothing left to stop. Local. */
void bcop_stop_obeyed(bool finished);

#endif
