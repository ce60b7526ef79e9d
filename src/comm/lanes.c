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

static void add(long length, float *restrict to, const float *restrict from) {
    for (long i = 0; i < length; i++)
        to[i] += from[i];
}

static int nodes_of(const bcop_lanes *sum, int rank) {
    return run_nodes(bcop_lanes_run(sum->lanes, sum->comm->size, rank), NULL);
}

static int nodes_of_all(const bcop_lanes *sum) {
    int nodes = 0;
    for (int r = 0; r < sum->comm->size; r++)
        nodes += nodes_of(sum, r);
    return nodes;
}

/* Where rank r's slice of a part begins; r = ranks: its end. */
static long cut(const bcop_lanes *sum, const bcop_lane_part *part, int r) {
    if (sum->comm->size == 2 && part->root >= 0)
        return part->begin + (r > part->root ? part->length : 0);
    return part->begin + part->length * r / sum->comm->size;
}

static long slice_of(const bcop_lanes *sum, const bcop_lane_part *part, int r) {
    return cut(sum, part, r + 1) - cut(sum, part, r);
}

void bcop_lanes_plan(bcop_lanes *sum, const bcop_comm *comm, int lanes, long length,
                     bcop_arena *arena) {
    bcop_lanes_plan_parts(sum, comm, lanes, length, 1, NULL, arena);
}

/* part NULL: the whole vector for every rank. */
void bcop_lanes_plan_parts(bcop_lanes *sum, const bcop_comm *comm, int lanes, long length,
                           int parts, const bcop_lane_part part[], bcop_arena *arena) {
    const int ranks = comm->size;
    *sum = (bcop_lanes){.comm = comm,
                        .lanes = lanes,
                        .length = length,
                        .parts = parts,
                        .part = part,
                        .whole = {0, length, BCOP_LANE_EVERY},
                        .run = bcop_lanes_run(lanes, ranks, comm->rank)};
    /* The stack holds the nodes of the lanes before, and the next lane. */
    for (int n = 0; n < sum->run.count; n++) {
        const int height = run_nodes((bcop_lane_run){sum->run.first, n}, NULL) + 1;
        sum->capacity = height > sum->capacity ? height : sum->capacity;
    }
    const int nodes = nodes_of_all(sum);
    sum->others = nodes - nodes_of(sum, comm->rank);
    sum->per_part = nodes + ranks * nodes_of(sum, comm->rank);
    sum->nodes = bcop_arena_take(arena, ranks + 1, sizeof(int));
    sum->node_covers = bcop_arena_take(arena, nodes, sizeof(int));
    sum->offset = bcop_arena_take(arena, ranks + 1, sizeof(long));
    sum->request = bcop_arena_take(arena, (long)parts * sum->per_part, sizeof(MPI_Request));
    sum->requests = bcop_arena_take(arena, parts, sizeof(int));
    sum->mine = bcop_arena_take(arena, parts, sizeof *sum->mine);
    if (!sum->nodes)
        return;
    for (int r = 0; r < ranks; r++)
        sum->nodes[r + 1] = sum->nodes[r] + run_nodes(bcop_lanes_run(lanes, ranks, r),
                                                      sum->node_covers + sum->nodes[r]);
}

static const bcop_lane_part *part_of(const bcop_lanes *sum, int k) {
    return sum->part ? &sum->part[k] : &sum->whole;
}

/* Floats of the others' nodes of this rank's slice of a part. */
static long slice_memory(const bcop_lanes *sum, int k) {
    return sum->others * slice_of(sum, part_of(sum, k), sum->comm->rank);
}

long bcop_lanes_buffer(const bcop_lanes *sum) {
    long size = sum->capacity * sum->length;
    for (int k = 0; k < sum->parts; k++)
        size += slice_memory(sum, k);
    return size + (sum->comm->size > 1 ? sum->length : 0);
}

void bcop_lanes_attach(bcop_lanes *sum, float *buffer) {
    sum->stack = buffer;
    sum->slice = buffer + sum->capacity * sum->length;
    sum->total = sum->slice;
    for (int k = 0; k < sum->parts; k++)
        sum->total += slice_memory(sum, k);
}

/* ---- summing this rank's lanes ---- */

void bcop_lanes_start(bcop_lanes *sum) {
    sum->height = 0;
    for (int k = 0; k < sum->parts; k++)
        sum->requests[k] = 0;
}

float *bcop_lanes_next(const bcop_lanes *sum) {
    return sum->stack + sum->height * sum->length;
}

/* How many nodes of the stack the next lane completes. */
static int merges(const bcop_lanes *sum) {
    int end = sum->run.first + 1, size = 1, count = 0;
    for (int i = 0; i < sum->height; i++)
        end += sum->covers[i];
    while (count < sum->height && sum->covers[sum->height - 1 - count] == size &&
           end % (2 * size) == 0) {
        size *= 2;
        count++;
    }
    return count;
}

void bcop_lanes_fold(bcop_lanes *sum, long begin, long length) {
    float *top = bcop_lanes_next(sum) + begin;
    for (int count = merges(sum); count > 0; count--, top -= sum->length)
        add(length, top - sum->length, top);
}

void bcop_lanes_advance(bcop_lanes *sum) {
    const int count = merges(sum);
    sum->height -= count;
    sum->covers[sum->height++] = 1 << count;
}

void bcop_lanes_push(bcop_lanes *sum) {
    bcop_lanes_fold(sum, 0, sum->length);
    bcop_lanes_advance(sum);
}

/* ---- finishing the tree with the other ranks ---- */

static int tag_of(const bcop_lanes *sum, int k, int node) {
    return 1 + k * (sum->nodes[sum->comm->size] + 1) + node; /* 0 is for comm/columns.c */
}

/* The slice's memory of part k. */
static float *slices(const bcop_lanes *sum, int k) {
    float *at = sum->slice;
    for (int i = 0; i < k; i++)
        at += slice_memory(sum, i);
    return at;
}

static void send(bcop_lanes *sum, int k, const float *data, long length, int to, int node) {
    bcop_traffic_add(1, length * (long)sizeof *data);
    MPI_Isend(data, (int)length, MPI_FLOAT, to, tag_of(sum, k, node), sum->comm->handle,
              &sum->request[k * sum->per_part + sum->requests[k]++]);
}

static void receive(bcop_lanes *sum, int k, float *data, long length, int from, int node) {
    MPI_Irecv(data, (int)length, MPI_FLOAT, from, tag_of(sum, k, node), sum->comm->handle,
              &sum->request[k * sum->per_part + sum->requests[k]++]);
}

static void wait(bcop_lanes *sum, int k) {
    const double begin = bcop_traffic_begin();
    MPI_Waitall(sum->requests[k], sum->request + k * sum->per_part, MPI_STATUSES_IGNORE);
    bcop_traffic_end(begin);
    sum->requests[k] = 0;
}

void bcop_lanes_send(bcop_lanes *sum, int k) {
    const bcop_comm *comm = sum->comm;
    const bcop_lane_part *part = part_of(sum, k);
    if (comm->size == 1 || part->length == 0)
        return;
    const double began = bcop_traffic_begin();
    const long own = slice_of(sum, part, comm->rank);
    float *to = slices(sum, k);
    for (int r = 0; own > 0 && r < comm->size; r++)
        for (int n = sum->nodes[r]; r != comm->rank && n < sum->nodes[r + 1]; n++, to += own)
            receive(sum, k, to, own, r, n);
    const int mine = sum->nodes[comm->rank], count = sum->nodes[comm->rank + 1] - mine;
    for (int step = 1; step < comm->size; step++) {
        /* each rank begins with its neighbour, so that no one is everyone's first */
        const int r = (comm->rank + step) % comm->size;
        const long length = slice_of(sum, part, r), begin = cut(sum, part, r);
        for (int i = 0; length > 0 && i < count; i++)
            send(sum, k, sum->stack + i * sum->length + begin, length, r, mine + i);
    }
    bcop_traffic_end(began);
}

void bcop_lanes_progress(bcop_lanes *sum) {
    for (int k = 0; k < sum->parts; k++) {
        int done;
        if (sum->requests[k] == 0)
            continue;
        const double begin = bcop_traffic_begin();
        MPI_Testall(sum->requests[k], sum->request + k * sum->per_part, &done, MPI_STATUSES_IGNORE);
        bcop_traffic_end(begin);
    }
}

/* Whether the two topmost nodes are the halves of one: of nodes that begin at lane 0, two of one
   size always are. */
static bool are_siblings(const int *covers, int height) {
    return height >= 2 && covers[height - 1] == covers[height - 2];
}

/* Finishes the tree over everyone's nodes of this rank's slice, by the same merging as in push.
   The sum is left in the first node. */
static float *reduce_slice(bcop_lanes *sum, int k) {
    const bcop_comm *comm = sum->comm;
    const bcop_lane_part *part = part_of(sum, k);
    const long own = slice_of(sum, part, comm->rank);
    float *node[2 * BCOP_LANE_NODES_MAX], *other = slices(sum, k);
    int covers[2 * BCOP_LANE_NODES_MAX], height = 0;
    for (int r = 0; r < comm->size; r++)
        for (int n = sum->nodes[r]; n < sum->nodes[r + 1]; n++) {
            if (r == comm->rank) {
                node[height] =
                    sum->stack + (n - sum->nodes[r]) * sum->length + cut(sum, part, comm->rank);
            } else {
                node[height] = other;
                other += own;
            }
            covers[height++] = sum->node_covers[n];
            while (are_siblings(covers, height)) {
                height--;
                add(own, node[height - 1], node[height]);
                covers[height - 1] *= 2;
            }
        }
    return node[0];
}

/* The finished slice of a part starts on its way to the root. */
static void collect(bcop_lanes *sum, int k) {
    const bcop_comm *comm = sum->comm;
    const bcop_lane_part *part = part_of(sum, k);
    const int last = sum->nodes[comm->size]; /* a tag of its own */
    const long own = slice_of(sum, part, comm->rank);
    if (comm->rank != part->root) {
        if (own > 0)
            send(sum, k, sum->mine[k], own, part->root, last);
        return;
    }
    for (int r = 0; r < comm->size; r++)
        if (r != comm->rank && slice_of(sum, part, r) > 0)
            receive(sum, k, sum->total + cut(sum, part, r), slice_of(sum, part, r), r, last);
}

void bcop_lanes_reduce(bcop_lanes *sum, int k) {
    const bcop_lane_part *part = part_of(sum, k);
    if (sum->comm->size == 1 || part->length == 0)
        return;
    wait(sum, k);
    sum->mine[k] = reduce_slice(sum, k);
    if (part->root >= 0 && sum->comm->size > 2)
        collect(sum, k);
}

const float *bcop_lanes_receive(bcop_lanes *sum, int k) {
    const bcop_comm *comm = sum->comm;
    const bcop_lane_part *part = part_of(sum, k);
    if (comm->size == 1)
        return sum->stack + part->begin; /* one rank holds the whole tree */
    const bool wanted = part->root == BCOP_LANE_EVERY || part->root == comm->rank;
    if (part->length == 0)
        return wanted ? sum->total : NULL;
    wait(sum, k);
    if (!wanted)
        return NULL;
    if (part->root >= 0 && comm->size == 2)
        return sum->mine[k]; /* the root's slice is the whole part */
    memcpy(sum->total + cut(sum, part, comm->rank), sum->mine[k],
           (size_t)slice_of(sum, part, comm->rank) * sizeof(float));
    if (part->root == BCOP_LANE_EVERY) {
        for (int r = 0; r <= comm->size; r++)
            sum->offset[r] = cut(sum, part, r) - part->begin;
        bcop_comm_gather_floats(comm, sum->total + part->begin, sum->offset);
    }
    return sum->total + part->begin;
}

float *bcop_lanes_finish(bcop_lanes *sum) {
    bcop_lanes_send(sum, 0);
    bcop_lanes_reduce(sum, 0);
    return (float *)bcop_lanes_receive(sum, 0);
}

void bcop_lanes_list(const bcop_lanes *sum, const bcop_traffic_visitor *v) {
    const int ranks = sum->comm->size, me = sum->comm->rank, nodes = nodes_of(sum, me);
    for (int k = 0; ranks > 1 && k < sum->parts; k++) {
        const bcop_lane_part *part = part_of(sum, k);
        for (int step = 1; step < ranks; step++) {
            const int r = (me + step) % ranks;
            const long length = slice_of(sum, part, r);
            for (int i = 0; length > 0 && i < nodes; i++)
                bcop_traffic_tell(v, BCOP_TRAFFIC_SEND, r, length * (long)sizeof(float));
        }
    }
    for (int k = 0; ranks > 1 && k < sum->parts; k++) {
        const bcop_lane_part *part = part_of(sum, k);
        const long own = slice_of(sum, part, me) * (long)sizeof(float);
        if (own > 0 && part->root < 0)
            bcop_traffic_tell_group(v, BCOP_TRAFFIC_GATHER, ranks, own);
        else if (own > 0 && part->root != me)
            bcop_traffic_tell(v, BCOP_TRAFFIC_FINISH, part->root, own);
    }
}

void bcop_lanes_count(const bcop_lanes *sum, long *messages, long *bytes) {
    bcop_traffic t = {0};
    const bcop_traffic_visitor v = bcop_traffic_counter(&t);
    bcop_lanes_list(sum, &v);
    *messages += t.messages[v.kind];
    *bytes += t.bytes[v.kind];
}
