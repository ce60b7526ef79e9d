/* To be preloaded into one rank: calls fail with $BCOP_FAIL_ERROR (EIO, ENOSPC, EDQUOT; default
 * EIO) for files whose path contains "step-" or "metrics", while the file $BCOP_FAIL exists; its
 * text names the calls: "fsync", "rename", "write" (all ways of writing), "short" (half of what is
 * to be written), "allocate", "unlink", "mkdir", "settle" (fsync of a run folder named
 * "run"), "symlink" (to a "step-"). libfiu does the same for every file, and with that
 * it hangs one start of MPI in eight. $BCOP_FAIL_CLOCK: seconds by which time() is wrong. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static bool asked(const char *call) {
    char text[256] = "";
    const char *name = getenv("BCOP_FAIL");
    const int file = name ? open(name, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0)
        return false;
    const long got = read(file, text, sizeof text - 1);
    close(file);
    return got > 0 && strstr(text, call);
}

static bool ours(const char *path) {
    return strstr(path, "step-") || strstr(path, "metrics");
}

static bool path_fails(const char *call, const char *path) {
    const char *error = getenv("BCOP_FAIL_ERROR");
    if (!ours(path) || !asked(call))
        return false;
    errno = !error                         ? EIO
            : strcmp(error, "ENOSPC") == 0 ? ENOSPC
            : strcmp(error, "EDQUOT") == 0 ? EDQUOT
                                           : EIO;
    return true;
}

static bool is_ours(int file, char path[4096]) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    const long length = readlink(link, path, 4095);
    path[length > 0 ? length : 0] = '\0';
    return length > 0 && ours(path);
}

static bool fails(const char *call, int file) {
    char path[4096];
    return is_ours(file, path) && path_fails(call, path);
}

static size_t shorter(int file, size_t bytes) {
    char path[4096];
    return bytes > 1 && is_ours(file, path) && asked("short") ? bytes / 2 : bytes;
}

time_t time(time_t *to) {
    const char *wrong = getenv("BCOP_FAIL_CLOCK");
    const time_t now = NEXT(time)(NULL) + (wrong ? atol(wrong) : 0);
    if (to)
        *to = now;
    return now;
}

/* What comes after a checkpoint has its name. */
static bool settle_fails(int file) {
    char path[4096];
    is_ours(file, path);
    const char *name = strrchr(path, '/');
    return name && strcmp(name, "/run") == 0 && path_fails("settle", "step-");
}

int fsync(int file) {
    return fails("fsync", file) || settle_fails(file) ? -1 : NEXT(fsync)(file);
}

int symlink(const char *target, const char *path) {
    return path_fails("symlink", target) ? -1 : NEXT(symlink)(target, path);
}

int fdatasync(int file) {
    return fails("fsync", file) ? -1 : NEXT(fdatasync)(file);
}

int rename(const char *from, const char *to) {
    return path_fails("rename", from) ? -1 : NEXT(rename)(from, to);
}

int unlink(const char *path) {
    return path_fails("unlink", path) ? -1 : NEXT(unlink)(path);
}

int mkdir(const char *path, mode_t mode) {
    return path_fails("mkdir", path) ? -1 : NEXT(mkdir)(path, mode);
}

ssize_t write(int file, const void *data, size_t bytes) {
    return fails("write", file) ? -1 : NEXT(write)(file, data, shorter(file, bytes));
}

ssize_t pwrite(int file, const void *data, size_t bytes, off_t at) {
    return fails("write", file) ? -1 : NEXT(pwrite)(file, data, shorter(file, bytes), at);
}

ssize_t pwrite64(int file, const void *data, size_t bytes, off_t at) {
    return pwrite(file, data, bytes, at);
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    return fails("write", file) ? -1 : NEXT(writev)(file, parts, count);
}

ssize_t pwritev(int file, const struct iovec *parts, int count, off_t at) {
    return fails("write", file) ? -1 : NEXT(pwritev)(file, parts, count, at);
}

ssize_t pwritev64(int file, const struct iovec *parts, int count, off_t at) {
    return pwritev(file, parts, count, at);
}

int posix_fallocate(int file, off_t at, off_t bytes) {
    return fails("allocate", file) ? errno : NEXT(posix_fallocate)(file, at, bytes);
}

int posix_fallocate64(int file, off_t at, off_t bytes) {
    return posix_fallocate(file, at, bytes);
}
