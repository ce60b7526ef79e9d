#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { PATH_SIZE = 4096 };

int bcop_file_put(int file, const void *data, size_t bytes, size_t *done) {
    const char *at = data;
    size_t left = bytes;
    while (left > 0) {
        const ssize_t put = write(file, at, left);
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            break;
        at += put;
        left -= (size_t)put;
    }
    if (done)
        *done = bytes - left;
    return left ? -1 : 0;
}

bcop_status bcop_file_sync(const char *path) {
    const int file = open(path, O_RDONLY | O_CLOEXEC);
    if (file < 0)
        return bcop_status_fail(BCOP_IO, "%s: cannot sync: %s", path, strerror(errno));
    bcop_status status = BCOP_OK;
    if (fsync(file) != 0)
        status = bcop_status_fail(BCOP_IO, "%s: cannot sync: %s", path, strerror(errno));
    close(file);
    return status;
}

static bcop_status fill(int file, const char *path, const char *text, size_t bytes) {
    if (bcop_file_put(file, text, bytes, NULL) != 0)
        return bcop_status_fail(BCOP_IO, "%s: cannot write: %s", path, strerror(errno));
    if (fsync(file) != 0)
        return bcop_status_fail(BCOP_IO, "%s: cannot sync: %s", path, strerror(errno));
    return BCOP_OK;
}

bcop_status bcop_file_write(const char *folder, const char *name, const char *text, size_t bytes) {
    char path[PATH_SIZE], work[PATH_SIZE + 32];
    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
        return bcop_status_fail(BCOP_CANNOT_CREATE, "%.80s...: the path is too long", folder);
    snprintf(work, sizeof work, "%s/.%s.%ld", folder, name, (long)getpid());
    unlink(work); /* of a killed process that had this number */
    const int file = open(work, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file < 0 && (errno == EACCES || errno == EPERM))
        return bcop_status_errno(BCOP_PERMISSION, "%s: cannot create", path);
    if (file < 0)
        return bcop_status_fail(BCOP_CANNOT_CREATE, "%s: cannot create: %s", path, strerror(errno));
    bcop_status status = fill(file, path, text, bytes);
    if (close(file) != 0 && status == BCOP_OK)
        status = bcop_status_fail(BCOP_IO, "%s: cannot write: %s", path, strerror(errno));
    if (status == BCOP_OK && rename(work, path) != 0)
        status = bcop_status_fail(BCOP_IO, "%s: cannot rename: %s", path, strerror(errno));
    if (status != BCOP_OK)
        unlink(work);
    return status == BCOP_OK ? bcop_file_sync(folder) : status;
}
