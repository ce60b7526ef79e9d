/* Lanes: the fixed way in which sums over the batch are cut, so that they give the same bits on any
 * number of ranks.
 *
 * The global batch is cut into `lanes` equal lanes, a power of two. The sum over lanes is one fixed
 * binary tree: node (first, 2s) = node (first, s) + node (first + s, s). Each rank holds a run of
 * lanes, adds up what of the tree lies inside it as it goes, and is left with few nodes. Each rank
 * then finishes the tree for its own slice of the vector, from everybody's nodes, and the slices
 * are gathered: about the bytes of one plain all-reduce when runs are aligned (powers of two). */
#ifndef BCOP_COMM_LANES_H
#define BCOP_COMM_LANES_H

#include "base/arena.h"
#include "comm/comm.h"

enum { BCOP_LANE_NODES_MAX = 32 };

/* The lanes first .. first + count - 1 of a rank: equal shares, larger ones last. */
typedef struct bcop_lane_run {
    int first, count;
} bcop_lane_run;

bcop_lane_run bcop_lanes_run(int lanes, int ranks, int rank);

/* A vector of `length` floats being summed over all lanes. */
typedef struct bcop_lanes {
    const bcop_comm *comm;
    int lanes;
    long length;
    bcop_lane_run run;
    /* The nodes summed so far, in lane order: stack[i][length] covers `covers[i]` lanes. */
    float *stack;
    int height, capacity;
    int covers[BCOP_LANE_NODES_MAX];
    /* To finish: all ranks' nodes of this rank's slice, the total, and the requests. */
    long *offset; /* [ranks + 1]: slices of the vector */
    int *nodes;   /* [ranks + 1]: where each rank's nodes begin */
    int *node_covers;
    long slice_size;
    float *slice; /* [nodes][slice length] */
    float *total; /* [length] */
    MPI_Request *request;
} bcop_lanes;

/* Takes the memory of the tables, in both passes of the arena; the vectors' is separate, so that
 * sums that are never formed at the same time can share it. `lanes` is a power of two >= the number
 * of ranks. Local. */
void bcop_lanes_plan(bcop_lanes *sum, const bcop_comm *comm, int lanes, long length,
                     bcop_arena *arena);

/* Floats of the vectors' memory, and giving it: it is not owned, and holds the sum until its next
 * user. Local. */
long bcop_lanes_buffer(const bcop_lanes *sum);
void bcop_lanes_attach(bcop_lanes *sum, float *buffer);

/* Starts a new sum. Local. */
void bcop_lanes_start(bcop_lanes *sum);

/* Where the next lane's vector is to be written [length]. Local. */
float *bcop_lanes_next(const bcop_lanes *sum);

/* The vector at bcop_lanes_next() is complete: takes it into the tree. To be called once per lane
 * of the run, in order. Local. */
void bcop_lanes_push(bcop_lanes *sum);

/* The sum over all lanes of all ranks [length], the same bits everywhere; it belongs to `sum` until
 * the next finish. Collective. */
float *bcop_lanes_finish(bcop_lanes *sum);

#endif
