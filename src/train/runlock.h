/* RUN/lock: one training at a time in a run directory.
 *
 * The file is held with flock() and says who holds it, as one line of JSON:
 *   {"host": "node1", "pid": 123, "job": "4711", "since": "2026-11-23T16:00:00Z"}   (job or null)
 * A holder touches it every 10 seconds. The lock of a dead process of this host is free at once; of
 * another host, where flock() may not reach, when it was not touched for 60 seconds, all by the
 * clock of the file system. */
#ifndef BCOP_TRAIN_RUNLOCK_H
#define BCOP_TRAIN_RUNLOCK_H

#include "base/status.h"

typedef struct bcop_runlock bcop_runlock;

/* Takes the lock of the existing folder `run`. When another host's lock is not old enough to be
 * free, it is watched for up to a minute. BCOP_CANNOT_CREATE naming the holder. Local. */
bcop_status bcop_runlock_take(const char *run, bcop_runlock **lock);

/* Gives it back and removes the file. NULL is allowed. Local. */
void bcop_runlock_give(bcop_runlock *lock);

#endif
