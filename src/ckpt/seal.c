#include "ckpt/seal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

long bcop_seal_blocks(long bytes) {
    return bytes / BCOP_SEAL_BLOCK + (bytes % BCOP_SEAL_BLOCK > 0);
}

static bcop_status no_memory(void) {
    return bcop_status_fail(BCOP_INTERNAL, "out of memory for the checkpoint's hashes");
}

bcop_status bcop_seal_create(int count, bcop_seal *seal) {
    *seal = (bcop_seal){.count = count, .array = calloc((size_t)count + 1, sizeof *seal->array)};
    return seal->array ? BCOP_OK : no_memory();
}

bcop_status bcop_seal_number(bcop_seal *seal) {
    seal->blocks = 0;
    for (int i = 0; i < seal->count; i++) {
        seal->array[i].first = seal->blocks;
        seal->blocks += bcop_seal_blocks(seal->array[i].bytes);
    }
    free(seal->hash);
    seal->hash = calloc((size_t)seal->blocks + 1, sizeof *seal->hash);
    return seal->hash ? BCOP_OK : no_memory();
}

void bcop_seal_free(bcop_seal *seal) {
    free(seal->array);
    free(seal->hash);
    *seal = (bcop_seal){0};
}

static long block_length(long bytes, long block) {
    const long left = bytes - block * BCOP_SEAL_BLOCK;
    return left < BCOP_SEAL_BLOCK ? left : BCOP_SEAL_BLOCK;
}

uint64_t bcop_seal_hash(const void *data, long bytes, long block) {
    return XXH3_64bits((const char *)data + block * BCOP_SEAL_BLOCK,
                       (size_t)block_length(bytes, block));
}

bool bcop_seal_agrees(const bcop_seal *seal, int array, const void *data) {
    const bcop_seal_array *a = &seal->array[array];
    for (long b = 0; b < bcop_seal_blocks(a->bytes); b++)
        if (seal->hash[a->first + b] != bcop_seal_hash(data, a->bytes, b))
            return false;
    return true;
}

int bcop_seal_find(const bcop_seal *seal, const char *path) {
    for (int i = 0; i < seal->count; i++)
        if (strcmp(seal->array[i].path, path) == 0)
            return i;
    return -1;
}

/* A sealed file that is being read. */
typedef struct reader {
    const char *path;
    int file;
    char *buffer; /* [BCOP_SEAL_BLOCK] */
} reader;

static bcop_status open_reader(const char *path, const bcop_seal *seal, reader *r) {
    *r = (reader){.path = path, .file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    if (r->file < 0)
        return bcop_status_errno(BCOP_IO, "%s: cannot open", path);
    struct stat info;
    if (fstat(r->file, &info) != 0 || !S_ISREG(info.st_mode))
        return bcop_status_fail(BCOP_BAD_DATA, "%s: not a file", path);
    if (info.st_size != seal->bytes)
        return bcop_status_fail(BCOP_BAD_DATA, "%s: has %ld bytes, its manifest says %ld", path,
                                (long)info.st_size, seal->bytes);
    r->buffer = malloc(BCOP_SEAL_BLOCK);
    return r->buffer ? BCOP_OK : no_memory();
}

static void close_reader(reader *r) {
    free(r->buffer);
    if (r->file >= 0)
        close(r->file);
}

static bcop_status read_at(const reader *r, long offset, long bytes) {
    for (long done = 0; done < bytes;) {
        const ssize_t got = pread(r->file, r->buffer + done, (size_t)(bytes - done), offset + done);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return bcop_status_fail(BCOP_IO, "%s: cannot read: %s", r->path, strerror(errno));
        if (got == 0)
            return bcop_status_fail(BCOP_BAD_DATA, "%s: became shorter while it was read", r->path);
        done += got;
    }
    return BCOP_OK;
}

static int compare_offsets(const void *a, const void *b) {
    const bcop_seal_array *const *x = a, *const *y = b;
    return ((*x)->offset > (*y)->offset) - ((*x)->offset < (*y)->offset);
}

static bcop_status add_range(const reader *r, long from, long to, XXH3_state_t *state) {
    while (from < to) {
        const long part = to - from < BCOP_SEAL_BLOCK ? to - from : BCOP_SEAL_BLOCK;
        BCOP_TRY(read_at(r, from, part));
        XXH3_64bits_update(state, r->buffer, (size_t)part);
        from += part;
    }
    return BCOP_OK;
}

/* `sorted` by offset. */
static bcop_status add_gaps(const reader *r, const bcop_seal *seal,
                            const bcop_seal_array *const sorted[], XXH3_state_t *state) {
    long at = 0;
    for (int i = 0; i < seal->count; i++) {
        const bcop_seal_array *a = sorted[i];
        if (a->bytes == 0)
            continue;
        if (a->offset < at || a->offset > seal->bytes - a->bytes)
            return bcop_status_fail(BCOP_BAD_DATA, "%s: %s: has no place in the file", r->path,
                                    a->path);
        BCOP_TRY(add_range(r, at, a->offset, state));
        at = a->offset + a->bytes;
    }
    return add_range(r, at, seal->bytes, state);
}

static bcop_status hash_gaps(const reader *r, const bcop_seal *seal, uint64_t *hash) {
    const bcop_seal_array **sorted = calloc((size_t)seal->count + 1, sizeof *sorted);
    XXH3_state_t *state = XXH3_createState();
    bcop_status status = BCOP_OK;
    if (!sorted || !state || XXH3_64bits_reset(state) != XXH_OK)
        status = no_memory();
    if (status == BCOP_OK) {
        for (int i = 0; i < seal->count; i++)
            sorted[i] = &seal->array[i];
        qsort(sorted, (size_t)seal->count, sizeof(bcop_seal_array *), compare_offsets);
        status = add_gaps(r, seal, sorted, state);
        *hash = XXH3_64bits_digest(state);
    }
    XXH3_freeState(state);
    free(sorted);
    return status;
}

bcop_status bcop_seal_structure(const char *path, const bcop_seal *seal, uint64_t *hash) {
    reader r;
    bcop_status status = open_reader(path, seal, &r);
    if (status == BCOP_OK)
        status = hash_gaps(&r, seal, hash);
    close_reader(&r);
    return status;
}

static bcop_status check_array(const reader *r, const bcop_seal *seal, const bcop_seal_array *a,
                               bool (*mine)(const void *, long), const void *context) {
    for (long b = 0; b < bcop_seal_blocks(a->bytes); b++) {
        if (mine && !mine(context, a->first + b))
            continue;
        const long length = block_length(a->bytes, b);
        BCOP_TRY(read_at(r, a->offset + b * BCOP_SEAL_BLOCK, length));
        if (XXH3_64bits(r->buffer, (size_t)length) != seal->hash[a->first + b])
            return bcop_status_fail(BCOP_BAD_DATA,
                                    "%s: %s differs from its hash in bytes %ld to %ld", r->path,
                                    a->path, b * BCOP_SEAL_BLOCK, b * BCOP_SEAL_BLOCK + length - 1);
    }
    return BCOP_OK;
}

bcop_status bcop_seal_check(const char *path, const bcop_seal *seal, bool structure,
                            bool (*mine)(const void *, long), const void *context) {
    reader r;
    bcop_status status = open_reader(path, seal, &r);
    if (status == BCOP_OK && mine)
        posix_fadvise(r.file, 0, 0, POSIX_FADV_DONTNEED);
    uint64_t found = 0;
    if (status == BCOP_OK && structure)
        status = hash_gaps(&r, seal, &found);
    if (status == BCOP_OK && structure && found != seal->structure)
        status = bcop_status_fail(
            BCOP_BAD_DATA, "%s: differs from its hash outside of the arrays (in its metadata)",
            path);
    for (int i = 0; i < seal->count && status == BCOP_OK; i++)
        status = check_array(&r, seal, &seal->array[i], mine, context);
    close_reader(&r);
    return status;
}
