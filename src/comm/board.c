#define _GNU_SOURCE /* memfd_create */
#include "comm/board.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

void *bcop_board_slot(const bcop_board *board, int place) {
    return (char *)board->memory + place * board->bytes;
}

static size_t size_of(const bcop_board *b) {
    return (size_t)(b->count + 1) * (size_t)b->bytes;
}

/* Memory without a file: for a rank alone. */
static void *map_alone(size_t size) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

/* Memory that has no name in any file system, which would stay behind if its maker were killed.
 * Others reach it through its maker's open file, and know it by its number: a maker in another
 * container is another process to them. */
typedef struct shared_memory {
    pid_t maker;
    int file;
    dev_t device;
    ino_t number;
} shared_memory;

static bool is_it(const shared_memory *s, int file) {
    struct stat info;
    return fstat(file, &info) == 0 && info.st_dev == s->device && info.st_ino == s->number;
}

static shared_memory make_memory(size_t size) {
    struct stat info;
    shared_memory s = {.maker = getpid(), .file = memfd_create("bcop board", MFD_CLOEXEC)};
    /* taken now: else a full memory would show as a signal at the first use */
    if (s.file >= 0 && posix_fallocate(s.file, 0, (off_t)size) == 0 && fstat(s.file, &info) == 0) {
        s.device = info.st_dev;
        s.number = info.st_ino;
    }
    return s;
}

/* NULL when this process cannot have it. */
static void *map_memory(const shared_memory *s, size_t size) {
    char path[64];
    snprintf(path, sizeof path, "/proc/%ld/fd/%d", (long)s->maker, s->file);
    const int file = s->file < 0 ? -1 : open(path, O_RDWR | O_CLOEXEC);
    if (file < 0)
        return NULL;
    void *memory =
        is_it(s, file) ? mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) : MAP_FAILED;
    close(file);
    return memory == MAP_FAILED ? NULL : memory;
}

static void *map_together(const bcop_comm *node, size_t size) {
    shared_memory shared = {.file = -1};
    if (node->rank == 0)
        shared = make_memory(size);
    MPI_Bcast(&shared, sizeof shared, MPI_BYTE, 0, node->handle);
    void *memory = map_memory(&shared, size);
    int all = memory != NULL;
    MPI_Allreduce(MPI_IN_PLACE, &all, 1, MPI_INT, MPI_MIN, node->handle);
    if (node->rank == 0 && shared.file >= 0)
        close(shared.file);
    if (!all && memory)
        munmap(memory, size);
    return all ? memory : NULL;
}

static bcop_status no_memory(void) {
    return bcop_status_fail(BCOP_INTERNAL, "out of memory for the board of a node's ranks");
}

static bcop_status keep_alone(bcop_board *b, int rank) {
    b->count = 1;
    b->own = 0;
    b->rank[0] = rank;
    b->memory = map_alone(size_of(b));
    return b->memory ? BCOP_OK : no_memory();
}

/* Which of the nodes this is. */
static void number_node(const bcop_comm *comm, const bcop_comm *node, bcop_board *b) {
    int leads = node->rank == 0, before = 0;
    MPI_Exscan(&leads, &before, 1, MPI_INT, MPI_SUM, comm->handle);
    b->node = comm->rank == 0 ? 0 : before;
    MPI_Bcast(&b->node, 1, MPI_INT, 0, node->handle);
    MPI_Allreduce(&leads, &b->nodes, 1, MPI_INT, MPI_SUM, comm->handle);
}

static bcop_status open_with(const bcop_comm *comm, const bcop_comm *node, bcop_board *b) {
    number_node(comm, node, b);
    b->rank = calloc((size_t)node->size, sizeof *b->rank);
    BCOP_TRY(bcop_comm_agree(comm, b->rank ? BCOP_OK : no_memory()));
    MPI_Allgather(&comm->rank, 1, MPI_INT, b->rank, 1, MPI_INT, node->handle);
    b->count = node->size;
    b->own = node->rank;
    b->memory = map_together(node, size_of(b));
    return bcop_comm_agree(comm, b->memory ? BCOP_OK : keep_alone(b, comm->rank));
}

bcop_status bcop_board_open(const bcop_comm *comm, long bytes, bcop_board *b) {
    *b = (bcop_board){.bytes = bytes, .nodes = 1};
    if (comm->size == 1) {
        b->rank = calloc(1, sizeof *b->rank);
        return b->rank ? keep_alone(b, 0) : no_memory();
    }
    bcop_comm node = {.handle = MPI_COMM_NULL};
    MPI_Comm_split_type(comm->handle, MPI_COMM_TYPE_SHARED, comm->rank, MPI_INFO_NULL,
                        &node.handle);
    MPI_Comm_rank(node.handle, &node.rank);
    MPI_Comm_size(node.handle, &node.size);
    const bcop_status status = open_with(comm, &node, b);
    MPI_Comm_free(&node.handle);
    return status;
}

void bcop_board_close(bcop_board *b) {
    if (b->memory)
        munmap(b->memory, size_of(b));
    free(b->rank);
    *b = (bcop_board){0};
}
