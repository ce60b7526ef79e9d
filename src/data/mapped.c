#include "data/mapped.h"

#include <fcntl.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

static bcop_status map(int fd, bcop_mapped *mapped) {
    struct stat info;
    if (fstat(fd, &info))
        return bcop_status_errno(BCOP_IO, "%s", mapped->path);
    if (!S_ISREG(info.st_mode))
        return bcop_status_fail(BCOP_BAD_DATA, "%s: not a regular file", mapped->path);
    if (info.st_size == 0)
        return bcop_status_fail(BCOP_BAD_DATA, "%s: the file is empty", mapped->path);
    void *data = mmap(NULL, (size_t)info.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED)
        return bcop_status_errno(BCOP_IO, "%s: cannot be mapped", mapped->path);
    mapped->data = data;
    mapped->size = info.st_size;
    return BCOP_OK;
}

static bcop_status open_path(bcop_mapped *mapped) {
    /* Without O_NONBLOCK the opening of a named pipe would wait for its writer. */
    const int fd = open(mapped->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return bcop_status_errno(BCOP_IO, "%s", mapped->path);
    const bcop_status status = map(fd, mapped);
    close(fd);
    return status;
}

static bcop_status join(const char *dir, const char *name, const char *suffix,
                        bcop_mapped *mapped) {
    *mapped = (bcop_mapped){0};
    const int length = snprintf(mapped->path, sizeof mapped->path, "%s/%s%s", dir, name, suffix);
    if (length < 0 || (size_t)length >= sizeof mapped->path)
        return bcop_status_fail(BCOP_CONFIG, "%s: the path is too long", dir);
    return BCOP_OK;
}

bcop_status bcop_mapped_open(const char *dir, const char *name, bcop_mapped *mapped) {
    bcop_status status = join(dir, name, "", mapped);
    if (status == BCOP_OK)
        status = open_path(mapped);
    if (status != BCOP_OK)
        *mapped = (bcop_mapped){0};
    return status;
}

/* A growing piece of memory. Deflate packs at most about 1032 to 1, which bounds it. */
typedef struct growing {
    unsigned char *data;
    size_t used, size;
} growing;

static bool grow(growing *out) {
    const size_t size = out->size ? 2 * out->size : (size_t)1 << 20;
    unsigned char *data = size > (size_t)LONG_MAX ? NULL : realloc(out->data, size);
    if (!data)
        return false;
    out->data = data;
    out->size = size;
    return true;
}

static uInt clip(size_t size) {
    return size > 1u << 30 ? 1u << 30 : (uInt)size;
}

static bcop_status inflate_members(z_stream *stream, const bcop_mapped *in, growing *out) {
    const size_t total = (size_t)in->size;
    size_t consumed = 0;
    while (true) {
        if (out->used == out->size && !grow(out))
            return bcop_status_fail(BCOP_INTERNAL, "%s: no memory to unpack it", in->path);
        const uInt fed = clip(total - consumed), room = clip(out->size - out->used);
        stream->next_in = (z_const Bytef *)in->data + consumed;
        stream->avail_in = fed;
        stream->next_out = out->data + out->used;
        stream->avail_out = room;
        const int code = inflate(stream, Z_NO_FLUSH);
        consumed += fed - stream->avail_in;
        out->used += room - stream->avail_out;
        if (code == Z_STREAM_END && consumed == total)
            return BCOP_OK;
        if (code == Z_STREAM_END)
            inflateReset(stream);
        else if (code == Z_BUF_ERROR) /* no progress though there is room: the input has run out */
            return bcop_status_fail(BCOP_BAD_DATA, "%s: the gzip file is cut short", in->path);
        else if (code != Z_OK)
            return bcop_status_fail(BCOP_BAD_DATA, "%s: the gzip file is damaged: %s", in->path,
                                    stream->msg ? stream->msg : "no gzip data");
    }
}

static bcop_status inflate_all(const bcop_mapped *in, bcop_mapped *mapped) {
    enum { GZIP_ONLY = 16 };
    z_stream stream = {0};
    growing out = {0};
    if (inflateInit2(&stream, GZIP_ONLY + MAX_WBITS) != Z_OK)
        return bcop_status_fail(BCOP_INTERNAL, "%s: zlib does not start", in->path);
    bcop_status status = inflate_members(&stream, in, &out);
    inflateEnd(&stream);
    if (status == BCOP_OK && out.used == 0)
        status = bcop_status_fail(BCOP_BAD_DATA, "%s: the file is empty", in->path);
    if (status != BCOP_OK) {
        free(out.data);
        return status;
    }
    unsigned char *fitted = realloc(out.data, out.used);
    mapped->data = fitted ? fitted : out.data;
    mapped->size = (long)out.used;
    mapped->unpacked = true;
    return BCOP_OK;
}

bcop_status bcop_mapped_unpack(const char *dir, const char *name, bcop_mapped *mapped) {
    bcop_mapped packed;
    bcop_status status = join(dir, name, ".gz", &packed);
    if (status == BCOP_OK)
        status = open_path(&packed);
    *mapped = (bcop_mapped){0};
    if (status != BCOP_OK)
        return status;
    status = inflate_all(&packed, mapped);
    if (status == BCOP_OK)
        snprintf(mapped->path, sizeof mapped->path, "%s", packed.path);
    bcop_mapped_close(&packed);
    return status;
}

void bcop_mapped_close(bcop_mapped *mapped) {
    if (mapped->unpacked)
        free((void *)(uintptr_t)mapped->data);
    else if (mapped->data)
        munmap((void *)(uintptr_t)mapped->data, (size_t)mapped->size);
    *mapped = (bcop_mapped){0};
}
