/* Requests to stop, from signals: only flags are set in handlers; the trainer agrees on them once a
 * step.
 *
 * USR1 is the system's (time limit, preemption): exit 75, unless the file named by BCOP_STOP_FILE
 * exists, which is how the launcher says that a person asked. INT and TERM are a person's: exit 79.
 * A second INT or TERM ends the process at once. */
#ifndef BCOP_TRAIN_STOP_H
#define BCOP_TRAIN_STOP_H

#include "base/status.h"

/* Installs the handlers. Local. */
void bcop_stop_install(void);

/* BCOP_OK, BCOP_INTERRUPTED or BCOP_STOPPED, as this rank knows it. Local. */
bcop_status bcop_stop_requested(void);

#endif
