/* What measurements need of MPI: bare messages, and waiting without using a core. */
#ifndef BCOP_COMM_PROBE_H
#define BCOP_COMM_PROBE_H

#include "comm/comm.h"

enum { BCOP_PROBE_BYTES_MAX = 1 << 30 };

/* `times` round trips of `bytes` <= BCOP_PROBE_BYTES_MAX bytes of buffer between ranks 0 and 1; the
 * other ranks, and one alone, return at once. Collective. */
void bcop_probe_exchange(const bcop_comm *comm, void *buffer, long bytes, int times);

/* Returns when every rank has come here. Who comes early sleeps and looks again every 0.2 ms, so
 * that the core is left to others; a barrier of MPI would spin on it. Collective. */
void bcop_probe_idle(const bcop_comm *comm);

#endif
