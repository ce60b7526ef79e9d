/* The communicator, and agreement about errors: the door to MPI.
 *
 * Local functions return a status and never call MPI. Collective ones return the same status on
 * every rank. Between fallible local work and the next collective stands one bcop_comm_agree().
 * What a rank hands to MPI is counted (comm/traffic.h). */
#ifndef BCOP_COMM_COMM_H
#define BCOP_COMM_COMM_H

#include "comm/traffic.h"

#include "base/status.h"

#include <mpi.h>
#include <stdbool.h>

typedef struct bcop_comm {
    MPI_Comm handle; /* its own, for comm/, grid/ and ckpt/ alone */
    int rank, size;
    int base;  /* of a group: where it begins in the communicator it was cut from */
    int *part; /* [2][size] counts and offsets of gathers; owned */
} bcop_comm;

/* Starts MPI (funneled) when it was not, and duplicates the world. Collective. */
bcop_status bcop_comm_open(bcop_comm *comm);

/* A group of one, for which the functions here do not call MPI: for sums that stay on this rank. */
extern const bcop_comm bcop_comm_alone;

/* Rank `rank` of `size`, to plan with: memory, messages and loads of a job that does not run. The
 * functions here never call MPI for it: an agreement is this rank's own status, nothing is moved.
 * Sums and columns (lanes.h, columns.h) can be planned and counted for it, not sent. Local. */
bcop_comm bcop_comm_imagined(int rank, int size);

/* Cuts `comm` into groups of `members` consecutive ranks each; size 0 on the ranks that are left
 * over (with more members than ranks, one group of all). To be given back with bcop_comm_release.
 * Collective over `comm`. */
bcop_status bcop_comm_split(const bcop_comm *comm, int members, bcop_comm *group);
void bcop_comm_release(bcop_comm *group); /* Collective over the group; size 0 is allowed */

/* Gives the duplicate back and ends MPI. Collective. */
void bcop_comm_close(bcop_comm *comm);

/* The agreement: every rank gives its own status; all get BCOP_OK if all were OK, else the status
 * of the lowest failing rank, whose message then stands on every rank. One small reduction when all
 * is well. Collective. */
bcop_status bcop_comm_agree(const bcop_comm *comm, bcop_status mine);

/* `bytes` of rank `root` to everyone. Collective. */
void bcop_comm_broadcast(const bcop_comm *comm, void *data, long bytes, int root);

/* Adds element by element over the ranks where at most one rank has a nonzero in each place, so
 * that the result is exact and no order of summation matters. In place. Collective. */
void bcop_comm_merge(const bcop_comm *comm, double *data, long count);

/* The largest value over the ranks. Collective. */
double bcop_comm_max(const bcop_comm *comm, double value);

/* Every rank holds its part [offset[rank], offset[rank+1]) of data[offset[size]] (floats) and gets
 * the rest. In place. Collective. */
void bcop_comm_gather_floats(const bcop_comm *comm, float *data, const long offset[]);

/* Part [offset[rank], offset[rank+1]) of rank `root`'s data[offset[size]] (floats) to mine[] of
 * every other rank that has one. Collective. */
void bcop_comm_scatter_floats(const bcop_comm *comm, const float *data, const long offset[],
                              int root, float *mine);

/* "Open MPI 4.1.4" with its MPI standard. Needs no started MPI. Local. */
const char *bcop_comm_library(void);

/* BCOP_OK when `bytes` bytes are the same on every rank as on rank 0; else BCOP_BAD_DATA, the same
 * on every rank, saying which rank sees another `what`. At most 256 bytes. Collective. */
bcop_status bcop_comm_same(const bcop_comm *comm, const void *data, long bytes, const char *what);

#endif
