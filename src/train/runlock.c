#include "train/runlock.h"

#include "base/clock.h"
#include "base/host.h"
#include "base/log.h"
#include "base/ticker.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { TOUCH_SECONDS = 10, STALE_SECONDS = 60, PATH_SIZE = 4096 };

struct bcop_runlock {
    char path[PATH_SIZE];
    int file;
    bcop_ticker *ticker;
};

typedef struct holder {
    char host[256], job[64], since[21];
    long pid; /* 0: the file says nothing */
} holder;

static void take_text(const json_t *object, const char *key, char *text, size_t size) {
    const char *value = json_string_value(json_object_get(object, key));
    snprintf(text, size, "%s", value ? value : "");
}

static holder read_holder(int file) {
    holder h = {.pid = 0};
    char text[1024];
    const ssize_t got = pread(file, text, sizeof text, 0);
    json_t *object = got > 0 ? json_loadb(text, (size_t)got, 0, NULL) : NULL;
    take_text(object, "host", h.host, sizeof h.host);
    take_text(object, "job", h.job, sizeof h.job);
    take_text(object, "since", h.since, sizeof h.since);
    h.pid = (long)json_integer_value(json_object_get(object, "pid"));
    json_decref(object);
    return h;
}

static bcop_status held(const char *path, const holder *h) {
    if (h->pid <= 0) /* it was taken just now */
        return bcop_status_fail(BCOP_CANNOT_CREATE, "%s: another process trains this run", path);
    return bcop_status_fail(BCOP_CANNOT_CREATE,
                            "%s: process %ld on %s%s%s trains this run since %s", path, h->pid,
                            h->host, h->job[0] ? ", job " : "", h->job, h->since);
}

static bool same_time(struct timespec a, struct timespec b) {
    return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

/* When the file was touched, by the file server's clock. Opened anew: a server's clients keep what
   they know of a file that is open. */
static bool touched_at(const char *path, bool now, struct timespec *when) {
    struct stat info;
    const int file = open(path, now ? O_WRONLY | O_CREAT | O_CLOEXEC : O_RDONLY | O_CLOEXEC, 0666);
    if (file < 0)
        return false;
    const bool known = (!now || futimens(file, NULL) == 0) && fstat(file, &info) == 0;
    close(file);
    if (known)
        *when = info.st_mtim;
    return known;
}

/* Whether a holder on another host lives: its file is touched while we watch. Its age is that
   against a file of our own: our clock may be wrong by more than a lock may be old. */
static bool lives(const char *path, const holder *h) {
    char own[PATH_SIZE + 32];
    struct timespec first, last, now;
    bool alive = false;
    if (!touched_at(path, false, &first))
        return false;
    snprintf(own, sizeof own, "%s.%s.%ld", path, bcop_host_name(), (long)getpid());
    bcop_log_info("%s: held by process %ld on %s; seeing whether it lives", path, h->pid, h->host);
    for (int waited = 0; waited < STALE_SECONDS && !alive; waited++) {
        if (touched_at(own, true, &now) && now.tv_sec - first.tv_sec >= STALE_SECONDS)
            break;
        sleep(1);
        alive = touched_at(path, false, &last) && !same_time(first, last);
    }
    unlink(own);
    return alive;
}

/* `locked`: flock() holds the file, else this file system has no such locks. */
static bcop_status check_holder(const holder *h, const char *path, bool locked) {
    if (h->pid <= 0)
        return BCOP_OK;
    if (strcmp(h->host, bcop_host_name()) == 0)
        return locked || kill((pid_t)h->pid, 0) != 0 ? BCOP_OK : held(path, h);
    return lives(path, h) ? held(path, h) : BCOP_OK;
}

static bool is_same_file(int file, const char *path) {
    struct stat own, named;
    return fstat(file, &own) == 0 && stat(path, &named) == 0 && own.st_ino == named.st_ino &&
           own.st_dev == named.st_dev;
}

/* Whether nobody gave the lock back or took it while its holder was watched. */
static bool is_unchanged(int file, const char *path, const holder *before) {
    const holder now = read_holder(file);
    return is_same_file(file, path) && now.pid == before->pid &&
           strcmp(now.host, before->host) == 0 && strcmp(now.since, before->since) == 0;
}

/* Opens and locks; a file that was removed meanwhile by its holder is no lock. */
static bcop_status open_locked(const char *path, int *file) {
    for (int attempt = 0; attempt < 100; attempt++) {
        *file = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (*file < 0)
            return bcop_status_errno(BCOP_CANNOT_CREATE, "%s: cannot create", path);
        const bool locked = flock(*file, LOCK_EX | LOCK_NB) == 0;
        if (!locked && errno == EWOULDBLOCK) {
            const holder h = read_holder(*file);
            close(*file);
            return held(path, &h);
        }
        const holder before = read_holder(*file);
        const bcop_status status = check_holder(&before, path, locked);
        if (status == BCOP_OK && is_unchanged(*file, path, &before))
            return BCOP_OK;
        close(*file);
        if (status != BCOP_OK)
            return status;
    }
    return bcop_status_fail(BCOP_CANNOT_CREATE, "%s: cannot be locked", path);
}

static bcop_status write_holder(const bcop_runlock *lock) {
    char text[1024], since[21];
    bcop_clock_stamp(since);
    const char *job = bcop_host_job();
    json_t *object = json_pack("{s:s, s:I, s:s?, s:s}", "host", bcop_host_name(), "pid",
                               (json_int_t)getpid(), "job", job, "since", since);
    const size_t length = json_dumpb(object, text, sizeof text - 1, 0);
    json_decref(object);
    if (length == 0 || length > sizeof text - 1)
        return bcop_status_fail(BCOP_INTERNAL, "%s: cannot be described", lock->path);
    text[length] = '\n';
    if (ftruncate(lock->file, 0) != 0 ||
        pwrite(lock->file, text, length + 1, 0) != (ssize_t)(length + 1))
        return bcop_status_errno(BCOP_IO, "%s: cannot write", lock->path);
    return BCOP_OK;
}

static void touch(void *context) {
    const bcop_runlock *lock = context;
    futimens(lock->file, NULL);
}

bcop_status bcop_runlock_take(const char *run, bcop_runlock **lock) {
    *lock = NULL;
    bcop_runlock *l = calloc(1, sizeof *l);
    if (!l)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory for the run's lock");
    snprintf(l->path, sizeof l->path, "%s/lock", run);
    bcop_status status = open_locked(l->path, &l->file);
    if (status != BCOP_OK) {
        free(l);
        return status;
    }
    *lock = l;
    status = write_holder(l);
    if (status == BCOP_OK)
        status = bcop_ticker_open("the run's lock", TOUCH_SECONDS, touch, l, &l->ticker);
    if (status != BCOP_OK) {
        bcop_runlock_give(l);
        *lock = NULL;
    }
    return status;
}

void bcop_runlock_give(bcop_runlock *lock) {
    if (!lock)
        return;
    bcop_ticker_close(lock->ticker);
    if (is_same_file(lock->file, lock->path))
        unlink(lock->path);
    close(lock->file);
    free(lock);
}
