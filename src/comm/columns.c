#include "comm/columns.h"

#include <stdbool.h>
#include <string.h>

static int own_rows(const bcop_columns *c) {
    return c->row[c->comm->rank + 1] - c->row[c->comm->rank];
}

/* Whether rank r wants rows as they are, so that nothing needs to be packed. */
static bool wants_whole(const bcop_columns *c, int r) {
    return c->count[r] == c->width;
}

/* Floats that this rank sends to rank r. */
static long share(const bcop_columns *c, int r) {
    return r == c->comm->rank ? 0 : (long)own_rows(c) * c->count[r];
}

void bcop_columns_plan(bcop_columns *c, const bcop_comm *comm, int width, const int row[],
                       const int first[], const int count[], bcop_arena *arena) {
    *c = (bcop_columns){.comm = comm, .width = width, .row = row, .first = first, .count = count};
    const int ranks = comm->size, me = comm->rank;
    long packed = 0;
    for (int r = 0; r < ranks; r++)
        packed += wants_whole(c, r) ? 0 : share(c, r);
    c->wanted = bcop_arena_floats(arena, (long)row[ranks] * count[me]);
    if (!wants_whole(c, me))
        c->own = bcop_arena_floats(arena, (long)own_rows(c) * width);
    else if (c->wanted)
        c->own = c->wanted + (long)row[me] * width;
    c->packed = bcop_arena_floats(arena, packed);
    c->request = bcop_arena_take(arena, 2L * ranks, sizeof(MPI_Request));
}

static void copy_columns(const bcop_columns *c, int r, float *to) {
    const int rows = own_rows(c), count = c->count[r];
    for (int i = 0; i < rows; i++)
        memcpy(to + (long)i * count, c->own + (long)i * c->width + c->first[r],
               (size_t)count * sizeof *to);
}

/* All messages have the tag 0: between two ranks they come in the order in which the matrices are
   sent, which is the same on every rank. */
void bcop_columns_send(bcop_columns *c) {
    const bcop_comm *comm = c->comm;
    const int me = comm->rank, mine = c->count[me];
    const double begin = bcop_traffic_begin();
    for (int r = 0; mine > 0 && r < comm->size; r++)
        if (r != me && c->row[r + 1] > c->row[r])
            MPI_Irecv(c->wanted + (long)c->row[r] * mine, (c->row[r + 1] - c->row[r]) * mine,
                      MPI_FLOAT, r, 0, comm->handle, &c->request[c->requests++]);
    float *packed = c->packed;
    for (int step = 1; step < comm->size; step++) {
        const int r = (me + step) % comm->size;
        const long size = share(c, r);
        if (size == 0)
            continue;
        const float *data = c->own;
        if (!wants_whole(c, r)) {
            copy_columns(c, r, packed);
            data = packed;
            packed += size;
        }
        bcop_traffic_add(1, size * (long)sizeof *data);
        MPI_Isend(data, (int)size, MPI_FLOAT, r, 0, comm->handle, &c->request[c->requests++]);
    }
    bcop_traffic_end(begin);
}

void bcop_columns_progress(bcop_columns *c) {
    int done;
    if (c->requests == 0)
        return;
    const double begin = bcop_traffic_begin();
    MPI_Testall(c->requests, c->request, &done, MPI_STATUSES_IGNORE);
    bcop_traffic_end(begin);
}

const float *bcop_columns_receive(bcop_columns *c) {
    const int me = c->comm->rank;
    if (c->count[me] > 0 && !wants_whole(c, me))
        copy_columns(c, me, c->wanted + (long)c->row[me] * c->count[me]);
    const double begin = bcop_traffic_begin();
    MPI_Waitall(c->requests, c->request, MPI_STATUSES_IGNORE);
    bcop_traffic_end(begin);
    c->requests = 0;
    return c->count[me] > 0 ? c->wanted : NULL;
}

void bcop_columns_list(const bcop_columns *c, const bcop_traffic_visitor *v) {
    for (int step = 1; step < c->comm->size; step++) {
        const int r = (c->comm->rank + step) % c->comm->size;
        if (share(c, r) > 0)
            bcop_traffic_tell(v, BCOP_TRAFFIC_SEND, r, share(c, r) * (long)sizeof(float));
    }
}

void bcop_columns_count(const bcop_columns *c, long *messages, long *bytes) {
    bcop_traffic t = {0};
    const bcop_traffic_visitor v = bcop_traffic_counter(&t);
    bcop_columns_list(c, &v);
    *messages += t.messages[v.kind];
    *bytes += t.bytes[v.kind];
}
