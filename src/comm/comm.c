#include "comm/comm.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bcop_status bcop_comm_open(bcop_comm *comm) {
    int started = 0, level = 0;
    MPI_Initialized(&started);
    if (!started && MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &level) != MPI_SUCCESS)
        return bcop_status_fail(BCOP_INTERNAL, "MPI did not start");
    *comm = (bcop_comm){.handle = MPI_COMM_NULL};
    MPI_Comm_dup(MPI_COMM_WORLD, &comm->handle);
    MPI_Comm_rank(comm->handle, &comm->rank);
    MPI_Comm_size(comm->handle, &comm->size);
    comm->part = malloc(2 * (size_t)comm->size * sizeof *comm->part);
    if (!comm->part)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory for %d ranks", comm->size);
    return BCOP_OK;
}

const bcop_comm bcop_comm_alone = {.handle = MPI_COMM_SELF, .rank = 0, .size = 1};

bcop_comm bcop_comm_imagined(int rank, int size) {
    return (bcop_comm){.handle = MPI_COMM_NULL, .rank = rank, .size = size};
}

/* Whether there is nobody to talk to. */
static bool is_silent(const bcop_comm *comm) {
    return comm->size == 1 || comm->handle == MPI_COMM_NULL;
}

bcop_status bcop_comm_split(const bcop_comm *comm, int members, bcop_comm *group) {
    *group = (bcop_comm){.handle = MPI_COMM_NULL};
    const int size = members < comm->size ? members : comm->size;
    const int base = comm->rank / size * size;
    const bool member = base + size <= comm->size;
    if (comm->handle == MPI_COMM_NULL) {
        if (member)
            *group = bcop_comm_imagined(comm->rank - base, size);
        group->base = base;
        return BCOP_OK;
    }
    bcop_status status = BCOP_OK;
    MPI_Comm_split(comm->handle, member ? base : MPI_UNDEFINED, comm->rank, &group->handle);
    if (member) {
        MPI_Comm_rank(group->handle, &group->rank);
        MPI_Comm_size(group->handle, &group->size);
        group->base = base;
        group->part = malloc(2 * (size_t)group->size * sizeof *group->part);
        if (!group->part)
            status = bcop_status_fail(BCOP_INTERNAL, "out of memory for %d ranks", group->size);
    }
    return bcop_comm_agree(comm, status);
}

void bcop_comm_release(bcop_comm *group) {
    free(group->part);
    if (group->size > 0 && group->handle != MPI_COMM_NULL)
        MPI_Comm_free(&group->handle);
    *group = (bcop_comm){.handle = MPI_COMM_NULL};
}

void bcop_comm_close(bcop_comm *comm) {
    free(comm->part);
    MPI_Comm_free(&comm->handle);
    MPI_Finalize();
}

bcop_status bcop_comm_agree(const bcop_comm *comm, bcop_status mine) {
    if (is_silent(comm))
        return mine;
    /* The lowest failing rank decides, so that one rank's message is everyone's. */
    int speaker = mine == BCOP_OK ? INT_MAX : comm->rank;
    const double begin = bcop_traffic_begin();
    bcop_traffic_add(1, sizeof speaker);
    MPI_Allreduce(MPI_IN_PLACE, &speaker, 1, MPI_INT, MPI_MIN, comm->handle);
    bcop_traffic_end(begin);
    if (speaker == INT_MAX)
        return BCOP_OK;
    struct {
        int status;
        char message[1024];
    } verdict = {.status = (int)mine};
    snprintf(verdict.message, sizeof verdict.message, "%s", bcop_status_message());
    MPI_Bcast(&verdict, (int)sizeof verdict, MPI_BYTE, speaker, comm->handle);
    return bcop_status_fail((bcop_status)verdict.status, "%s", verdict.message);
}

void bcop_comm_broadcast(const bcop_comm *comm, void *data, long bytes, int root) {
    if (is_silent(comm))
        return;
    char *p = data;
    const double begin = bcop_traffic_begin();
    for (long done = 0; done < bytes; done += INT_MAX) {
        const long part = bytes - done < INT_MAX ? bytes - done : INT_MAX;
        if (comm->rank == root)
            bcop_traffic_add(comm->size - 1, part);
        MPI_Bcast(p + done, (int)part, MPI_BYTE, root, comm->handle);
    }
    bcop_traffic_end(begin);
}

void bcop_comm_merge(const bcop_comm *comm, double *data, long count) {
    if (is_silent(comm))
        return;
    const double begin = bcop_traffic_begin();
    for (long done = 0; done < count; done += INT_MAX) {
        const long part = count - done < INT_MAX ? count - done : INT_MAX;
        bcop_traffic_add(1, part * (long)sizeof *data);
        MPI_Allreduce(MPI_IN_PLACE, data + done, (int)part, MPI_DOUBLE, MPI_SUM, comm->handle);
    }
    bcop_traffic_end(begin);
}

double bcop_comm_max(const bcop_comm *comm, double value) {
    if (is_silent(comm))
        return value;
    const double begin = bcop_traffic_begin();
    bcop_traffic_add(1, sizeof value);
    MPI_Allreduce(MPI_IN_PLACE, &value, 1, MPI_DOUBLE, MPI_MAX, comm->handle);
    bcop_traffic_end(begin);
    return value;
}

void bcop_comm_gather_floats(const bcop_comm *comm, float *data, const long offset[]) {
    if (is_silent(comm))
        return;
    const double begin = bcop_traffic_begin();
    int *count = comm->part, *start = comm->part + comm->size;
    const long own = offset[comm->rank + 1] - offset[comm->rank];
    bcop_traffic_add(own > 0 ? comm->size - 1 : 0, own * (long)sizeof *data);
    for (int r = 0; r < comm->size; r++) {
        start[r] = (int)offset[r];
        count[r] = (int)(offset[r + 1] - offset[r]);
    }
    MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, data, count, start, MPI_FLOAT, comm->handle);
    bcop_traffic_end(begin);
}

static void scatter_floats(const bcop_comm *comm, const float *data, const long offset[], int root,
                           float *mine) {
    const long own = offset[comm->rank + 1] - offset[comm->rank];
    if (comm->rank != root) {
        if (own > 0)
            MPI_Recv(mine, (int)own, MPI_FLOAT, root, 0, comm->handle, MPI_STATUS_IGNORE);
        return;
    }
    for (int r = 0; r < comm->size; r++) {
        const long part = offset[r + 1] - offset[r];
        if (r == root || part == 0)
            continue;
        bcop_traffic_add(1, part * (long)sizeof *data);
        MPI_Send(data + offset[r], (int)part, MPI_FLOAT, r, 0, comm->handle);
    }
}

void bcop_comm_scatter_floats(const bcop_comm *comm, const float *data, const long offset[],
                              int root, float *mine) {
    if (is_silent(comm))
        return;
    const double begin = bcop_traffic_begin();
    scatter_floats(comm, data, offset, root, mine);
    bcop_traffic_end(begin);
}

const char *bcop_comm_library(void) {
    static char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int length;
    MPI_Get_library_version(text, &length);
    text[strcspn(text, ",")] = 0;
    return text;
}

bcop_status bcop_comm_same(const bcop_comm *comm, const void *data, long bytes, const char *what) {
    char first[256];
    memcpy(first, data, (size_t)bytes);
    bcop_comm_broadcast(comm, first, bytes, 0);
    bcop_status status = BCOP_OK;
    if (memcmp(first, data, (size_t)bytes) != 0)
        status = bcop_status_fail(BCOP_BAD_DATA, "rank %d sees another %s than rank 0", comm->rank,
                                  what);
    return bcop_comm_agree(comm, status);
}
