/* Lanes: the fixed way in which sums over the batch are cut, so that they give the same bits on any
 * number of ranks.
 *
 * The global batch is cut into `lanes` equal lanes, a power of two. The sum over lanes is one fixed
 * binary tree: node (first, 2s) = node (first, s) + node (first + s, s). Each rank holds a run of
 * lanes, adds up what of the tree lies inside it as it goes, and is left with few nodes.
 *
 * The vector is cut into parts, each with a root: the rank that wants its sum, or every rank. A
 * part's tree is finished by slices: each rank gets everybody's nodes of its slice, finishes the
 * tree there, and passes the slice on to the root (with two ranks the root's slice is the whole
 * part) or to every rank. When runs are aligned (powers of two) that is in all the bytes of one
 * plain all-reduce for every rank, and (1 + 1/ranks)/2 of them for one root (half with two ranks).
 * A part can be sent as soon as it is complete, while others are still being computed. */
#ifndef BCOP_COMM_LANES_H
#define BCOP_COMM_LANES_H

#include "base/arena.h"
#include "comm/comm.h"

enum { BCOP_LANE_NODES_MAX = 32, BCOP_LANE_EVERY = -1 };

/* The lanes first .. first + count - 1 of a rank: equal shares, larger ones last. */
typedef struct bcop_lane_run {
    int first, count;
} bcop_lane_run;

bcop_lane_run bcop_lanes_run(int lanes, int ranks, int rank);

/* Entries begin .. begin + length - 1 of the vector; root: who gets their sum, BCOP_LANE_EVERY. */
typedef struct bcop_lane_part {
    long begin, length;
    int root;
} bcop_lane_part;

/* A vector of `length` floats being summed over all lanes. */
typedef struct bcop_lanes {
    const bcop_comm *comm;
    int lanes;
    long length;
    int parts;
    const bcop_lane_part *part; /* [parts], not owned; they cover the vector without overlap */
    bcop_lane_part whole;       /* of a sum with one part */
    bcop_lane_run run;
    /* The nodes summed so far, in lane order: stack[i][length] covers `covers[i]` lanes. */
    float *stack;
    int height, capacity;
    int covers[BCOP_LANE_NODES_MAX];
    /* To finish: other ranks' nodes of this rank's slices, the totals, and the requests. */
    int others;           /* nodes of the other ranks */
    int *nodes;           /* [ranks + 1]: where each rank's nodes begin */
    int *node_covers;     /* [nodes] */
    long *offset;         /* [ranks + 1]: slices to gather */
    float *slice;         /* of all parts: [nodes of others][slice length] */
    float **mine;         /* [parts]: the finished slice of this rank */
    float *total;         /* [length] */
    MPI_Request *request; /* [parts][per_part] */
    int *requests;        /* [parts]: how many are on their way */
    int per_part;
} bcop_lanes;

/* Takes the memory of the tables, in both passes of the arena; the vectors' is separate, so that
 * sums that are never formed at the same time can share it. `lanes` is a power of two >= the number
 * of ranks. bcop_lanes_plan: one part for every rank. Local. */
void bcop_lanes_plan(bcop_lanes *sum, const bcop_comm *comm, int lanes, long length,
                     bcop_arena *arena);
void bcop_lanes_plan_parts(bcop_lanes *sum, const bcop_comm *comm, int lanes, long length,
                           int parts, const bcop_lane_part part[], bcop_arena *arena);

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

/* The same range by range, each while it is still in cache: fold every range of the vector once,
 * then advance to the next lane. Local. */
void bcop_lanes_fold(bcop_lanes *sum, long begin, long length);
void bcop_lanes_advance(bcop_lanes *sum);

/* Part `k` has been folded for the last lane of the run: its nodes start on their way. */
void bcop_lanes_send(bcop_lanes *sum, int k);

/* Lets messages move: MPI works on them only inside its calls. */
void bcop_lanes_progress(bcop_lanes *sum);

/* After bcop_lanes_send: finishes part k's tree in this rank's slice, which starts on its way to
 * the root. Reducing all parts before the first is received lets them travel together. */
void bcop_lanes_reduce(bcop_lanes *sum, int k);

/* After bcop_lanes_reduce: the sum of part k over all lanes of all ranks [part length], the same
 * bits everywhere, at its root or on every rank; NULL elsewhere. It belongs to `sum` until the next
 * start. Parts are to be received in the same order on every rank. Collective. */
const float *bcop_lanes_receive(bcop_lanes *sum, int k);

/* Sends and receives a sum of one part [length]; the caller may change it. Collective. */
float *bcop_lanes_finish(bcop_lanes *sum);

/* What this rank sends for all parts once: each message, nodes first, then finished slices; and
 * their sum added to *messages and *bytes. Local. */
void bcop_lanes_list(const bcop_lanes *sum, const bcop_traffic_visitor *v);
void bcop_lanes_count(const bcop_lanes *sum, long *messages, long *bytes);

#endif
