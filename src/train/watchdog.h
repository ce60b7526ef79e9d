/* The watchdog: one thread that ends the process with 81 when nothing moves any more. Open MPI
 * never notices a rank that stops calling it; the others would wait for ever.
 *
 * Each rank posts where it is on a board that the other ranks of its node can read (comm/board.h).
 * Who finds that nothing moves looks there for the one that is behind, and says its rank, step and
 * phase; one rank of a node speaks, and mpirun ends the rest. Ticks are counted, not the clock, so
 * a job that was suspended as a whole goes on unharmed. */
#ifndef BCOP_TRAIN_WATCHDOG_H
#define BCOP_TRAIN_WATCHDOG_H

#include "comm/comm.h"

/* In the order in which a rank goes through them between two steps. */
typedef enum bcop_watchdog_phase {
    BCOP_WATCHDOG_LOAD,
    BCOP_WATCHDOG_EVALUATE,
    BCOP_WATCHDOG_BOUND, /* local work of unknown length, which is not watched */
    BCOP_WATCHDOG_SAVE,
    BCOP_WATCHDOG_READ,
    BCOP_WATCHDOG_COMPUTE,
    BCOP_WATCHDOG_AGREE,
    BCOP_WATCHDOG_EXCHANGE,
    BCOP_WATCHDOG_UPDATE,
    BCOP_WATCHDOG_BUILD,
    BCOP_WATCHDOG_PHASES
} bcop_watchdog_phase;

typedef struct bcop_watchdog bcop_watchdog;

/* Starts the thread, in the phase of loading: it fires after max(seconds, 20 median steps) without
 * a beat, four times that while loading, and while saving four times that or the time of the last
 * checkpoint, if that is more. seconds = 0: none is started and *watchdog is NULL. BCOP_INTERNAL
 * when the system gives no thread. Collective. */
bcop_status bcop_watchdog_open(double seconds, const bcop_comm *comm, bcop_watchdog **watchdog);
void bcop_watchdog_close(bcop_watchdog *watchdog); /* NULL is allowed. Local */

/* Something moved: this rank is at this step (from 1), entering `phase`. NULL is allowed. Local, no
 * allocation. */
void bcop_watchdog_beat(bcop_watchdog *watchdog, long step, bcop_watchdog_phase phase);

/* How long a step, or a checkpoint, took. NULL is allowed. Local. */
void bcop_watchdog_step(bcop_watchdog *watchdog, double seconds);
void bcop_watchdog_saved(bcop_watchdog *watchdog, double seconds);

#endif
