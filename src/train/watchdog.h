/* The watchdog: one thread that ends the process with 81 when nothing moves any more. Open MPI
 * never notices a rank that stops calling it; the others would wait for ever.
 *
 * It counts its own ticks, not the clock, so a job that was suspended as a whole goes on unharmed.
 * The ranks' limits are staggered by rank, so that the lowest waiting rank speaks and mpirun ends
 * the rest before they do. */
#ifndef BCOP_TRAIN_WATCHDOG_H
#define BCOP_TRAIN_WATCHDOG_H

#include "base/status.h"

typedef struct bcop_watchdog bcop_watchdog;

/* Starts the thread: it fires after max(seconds, 20 typical steps) without a beat. seconds = 0:
 * none is started and *watchdog is NULL. BCOP_INTERNAL when the system gives no thread. Local. */
bcop_status bcop_watchdog_open(double seconds, int rank, bcop_watchdog **watchdog);
void bcop_watchdog_close(bcop_watchdog *watchdog); /* NULL is allowed */

/* Something moved: at this step, now entering `phase` (a literal that the message will name; NULL:
 * local work of unknown length, which is not watched), with steps taking about `typical` seconds. A
 * NULL watchdog is allowed. Local, no allocation. */
void bcop_watchdog_beat(bcop_watchdog *watchdog, long step, const char *phase, double typical);

#endif
