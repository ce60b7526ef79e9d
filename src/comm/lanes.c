#include "comm/lanes.h"

#include <string.h>

bcop_lane_run bcop_lanes_run(int lanes, int ranks, int rank) {
    const int first = (int)((long)lanes * rank / ranks);
    return (bcop_lane_run){first, (int)((long)lanes * (rank + 1) / ranks) - first};
}

/* The nodes that remain of a run of lanes: the largest aligned powers of two that fit, in order.
   Fills covers (NULL: only counts) and returns how many. */
static int run_nodes(bcop_lane_run run, int *covers) {
    int count = 0;
    for (int lane = run.first, end = run.first + run.count; lane < end; count++) {
        int size = 1;
        while (lane % (2 * size) == 0 && lane + 2 * size <= end)
            size *= 2;
        if (covers)
            covers[count] = size;
        lane += size;
    }
    return count;
}

/* Whether the two topmost of nodes that end at lane `end` are the halves of one node. */
static bool are_siblings(const int *covers, int height, int end) {
    return height >= 2 && covers[height - 1] == covers[height - 2] &&
           end % (2 * covers[height - 1]) == 0;
}

static void add(long length, float *restrict to, const float *restrict from) {
    for (long i = 0; i < length; i++)
        to[i] += from[i];
}

void bcop_lanes_plan(bcop_lanes *sum, const bcop_comm *comm, int lanes, long length,
                     bcop_arena *arena) {
    const int ranks = comm->size;
    *sum = (bcop_lanes){.comm = comm,
                        .lanes = lanes,
                        .length = length,
                        .run = bcop_lanes_run(lanes, ranks, comm->rank)};
    /* While summing, a full stack holds the finished nodes and one path of unfinished ones. */
    int levels = 1;
    while (1 << levels < sum->run.count)
        levels++;
    sum->capacity = run_nodes(sum->run, NULL) + levels + 1;
    int nodes = 0;
    for (int r = 0; r < ranks; r++)
        nodes += run_nodes(bcop_lanes_run(lanes, ranks, r), NULL);
    sum->offset = bcop_arena_take(arena, ranks + 1, sizeof(long));
    sum->nodes = bcop_arena_take(arena, ranks + 1, sizeof(int));
    sum->node_covers = bcop_arena_take(arena, nodes, sizeof(int));
    sum->slice_size = ranks > 1 ? nodes * (length / ranks + 1) : 0;
    sum->request = bcop_arena_take(arena, nodes + ranks * BCOP_LANE_NODES_MAX, sizeof(MPI_Request));
    if (!sum->offset)
        return;
    for (int r = 0; r <= ranks; r++)
        sum->offset[r] = length * r / ranks;
    for (int r = 0; r < ranks; r++)
        sum->nodes[r + 1] = sum->nodes[r] + run_nodes(bcop_lanes_run(lanes, ranks, r),
                                                      sum->node_covers + sum->nodes[r]);
}

long bcop_lanes_buffer(const bcop_lanes *sum) {
    const long total = sum->comm->size > 1 ? sum->length : 0;
    return sum->capacity * sum->length + sum->slice_size + total;
}

void bcop_lanes_attach(bcop_lanes *sum, float *buffer) {
    sum->stack = buffer;
    sum->slice = buffer + sum->capacity * sum->length;
    sum->total = sum->slice + sum->slice_size;
}

void bcop_lanes_start(bcop_lanes *sum) {
    sum->height = 0;
}

float *bcop_lanes_next(const bcop_lanes *sum) {
    return sum->stack + sum->height * sum->length;
}

void bcop_lanes_push(bcop_lanes *sum) {
    int end = sum->run.first + 1;
    for (int i = 0; i < sum->height; i++)
        end += sum->covers[i];
    sum->covers[sum->height++] = 1;
    while (are_siblings(sum->covers, sum->height, end)) {
        sum->height--;
        add(sum->length, sum->stack + (sum->height - 1) * sum->length,
            sum->stack + sum->height * sum->length);
        sum->covers[sum->height - 1] *= 2;
    }
}

/* Everyone's nodes of this rank's slice, in lane order. */
static void exchange(bcop_lanes *sum) {
    const bcop_comm *comm = sum->comm;
    const long begin = sum->offset[comm->rank], slice = sum->offset[comm->rank + 1] - begin;
    int requests = 0;
    for (int r = 0; r < comm->size; r++) {
        if (r == comm->rank)
            continue;
        for (int n = sum->nodes[r]; n < sum->nodes[r + 1]; n++)
            MPI_Irecv(sum->slice + n * slice, (int)slice, MPI_FLOAT, r, n, comm->handle,
                      &sum->request[requests++]);
    }
    for (int step = 1; step < comm->size; step++) {
        /* each rank begins with its neighbour, so that no one is everyone's first */
        const int r = (comm->rank + step) % comm->size;
        const long to = sum->offset[r], length = sum->offset[r + 1] - to;
        for (int i = 0; i < sum->height; i++)
            MPI_Isend(sum->stack + i * sum->length + to, (int)length, MPI_FLOAT, r,
                      sum->nodes[comm->rank] + i, comm->handle, &sum->request[requests++]);
    }
    for (int i = 0; i < sum->height; i++)
        memcpy(sum->slice + (sum->nodes[comm->rank] + i) * slice,
               sum->stack + i * sum->length + begin, (size_t)slice * sizeof(float));
    MPI_Waitall(requests, sum->request, MPI_STATUSES_IGNORE);
}

/* Finishes the tree over the slice's nodes: the same merging as in push. The sum ends in slice[0].
 */
static void reduce_slice(bcop_lanes *sum, long slice) {
    const int nodes = sum->nodes[sum->comm->size];
    int covers[2 * BCOP_LANE_NODES_MAX], height = 0, end = 0;
    for (int n = 0; n < nodes; n++) {
        memmove(sum->slice + height * slice, sum->slice + n * slice, (size_t)slice * sizeof(float));
        covers[height++] = sum->node_covers[n];
        end += sum->node_covers[n];
        while (are_siblings(covers, height, end)) {
            height--;
            add(slice, sum->slice + (height - 1) * slice, sum->slice + height * slice);
            covers[height - 1] *= 2;
        }
    }
}

float *bcop_lanes_finish(bcop_lanes *sum) {
    const bcop_comm *comm = sum->comm;
    if (comm->size == 1)
        return sum->stack; /* one rank holds the whole tree */
    const long begin = sum->offset[comm->rank], slice = sum->offset[comm->rank + 1] - begin;
    exchange(sum);
    reduce_slice(sum, slice);
    memcpy(sum->total + begin, sum->slice, (size_t)slice * sizeof(float));
    bcop_comm_gather_floats(comm, sum->total, sum->offset);
    return sum->total;
}
