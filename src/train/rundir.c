#include "train/rundir.h"

#include "base/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static void join(char path[static BCOP_PATH_MAX], const char *folder, const char *file) {
    snprintf(path, BCOP_PATH_MAX, "%s/%s", folder, file);
}

bcop_status bcop_rundir_make(const char *path) {
    char part[BCOP_PATH_MAX];
    if (!*path)
        return bcop_status_fail(BCOP_USAGE, "the run directory's name is empty");
    if (strlen(path) >= sizeof part - 64)
        return bcop_status_fail(BCOP_CANNOT_CREATE, "%.80s...: the path is too long", path);
    strcpy(part, path);
    for (char *p = part + 1;; p++)
        if (*p == '/' || !*p) {
            const char at = *p;
            *p = 0;
            if (mkdir(part, 0777) != 0 && errno != EEXIST)
                return bcop_status_errno(BCOP_CANNOT_CREATE, "%s: cannot create the folder", part);
            *p = at;
            if (!at)
                break;
        }
    struct stat info;
    if (stat(path, &info) != 0 || !S_ISDIR(info.st_mode))
        return bcop_status_fail(BCOP_CANNOT_CREATE, "%s: is not a folder", path);
    return BCOP_OK;
}

static bool exists(const char *folder, const char *file) {
    char path[BCOP_PATH_MAX];
    join(path, folder, file);
    struct stat info;
    return lstat(path, &info) == 0;
}

/* The step in a folder's name "step-NNNNNNNN", -1 for any other name. */
static long step_of(const char *name) {
    if (strncmp(name, "step-", 5) != 0 || strlen(name) < 13 || strlen(name) > 23 ||
        strspn(name + 5, "0123456789") != strlen(name + 5))
        return -1;
    return strtol(name + 5, NULL, 10);
}

void bcop_rundir_step_path(const char *run, long step, const char *suffix,
                           char path[static BCOP_PATH_MAX]) {
    snprintf(path, BCOP_PATH_MAX, "%s/step-%08ld%s", run, step, suffix);
}

static int compare_descending(const void *a, const void *b) {
    const long x = *(const long *)a, y = *(const long *)b;
    return (x < y) - (x > y);
}

/* The steps of all checkpoint folders, newest first; the caller frees the list. */
static int list_steps(const char *run, long **steps) {
    int count = 0, capacity = 0;
    *steps = NULL;
    DIR *folder = opendir(run);
    for (const struct dirent *entry; folder && (entry = readdir(folder));) {
        const long step = step_of(entry->d_name);
        if (step < 0)
            continue;
        if (count == capacity) {
            capacity = 2 * capacity + 16;
            long *more = realloc(*steps, (size_t)capacity * sizeof **steps);
            if (!more)
                break;
            *steps = more;
        }
        (*steps)[count++] = step;
    }
    if (folder)
        closedir(folder);
    if (count)
        qsort(*steps, (size_t)count, sizeof **steps, compare_descending);
    return count;
}

static bool is_committed(const char *run, long step) {
    char path[BCOP_PATH_MAX];
    bcop_rundir_step_path(run, step, "/MANIFEST.json", path);
    return access(path, F_OK) == 0;
}

long bcop_rundir_older(const char *run, long before, bool committed) {
    long *steps;
    const int count = list_steps(run, &steps);
    long found = -1;
    for (int i = 0; i < count && found < 0; i++)
        if (steps[i] < before && (!committed || is_committed(run, steps[i])))
            found = steps[i];
    free(steps);
    return found;
}

bool bcop_rundir_has_set_aside(const char *run) {
    bool found = false;
    DIR *folder = opendir(run);
    for (const struct dirent *entry; folder && !found && (entry = readdir(folder));) {
        char name[sizeof entry->d_name];
        strcpy(name, entry->d_name);
        char *bad = strstr(name, ".bad");
        if (bad) {
            *bad = 0;
            found = step_of(name) >= 0;
        }
    }
    if (folder)
        closedir(folder);
    return found;
}

bcop_rundir_state bcop_rundir_look(const char *run) {
    if (exists(run, "metrics.jsonl") || bcop_rundir_older(run, LONG_MAX, false) >= 0 ||
        bcop_rundir_has_set_aside(run))
        return BCOP_RUNDIR_RUN;
    return exists(run, "config.yaml") ? BCOP_RUNDIR_CONFIG : BCOP_RUNDIR_FREE;
}

bcop_status bcop_rundir_set_aside(const char *run, long step, const char *reason) {
    char path[BCOP_PATH_MAX], aside[BCOP_PATH_MAX];
    bcop_rundir_step_path(run, step, "", path);
    for (int attempt = 0; attempt < 100; attempt++) {
        char suffix[16];
        snprintf(suffix, sizeof suffix, attempt ? ".bad%d" : ".bad", attempt);
        bcop_rundir_step_path(run, step, suffix, aside);
        if (rename(path, aside) == 0)
            return bcop_file_write(aside, "REASON", reason, strlen(reason));
        if (errno != ENOTEMPTY && errno != EEXIST)
            break;
    }
    return bcop_status_errno(BCOP_IO, "%s: cannot be set aside", path);
}

bcop_status bcop_rundir_link(const char *run, const char *name, long step) {
    char path[BCOP_PATH_MAX], temporary[BCOP_PATH_MAX], target[64];
    join(path, run, name);
    snprintf(temporary, sizeof temporary, "%s/.%s.tmp", run, name);
    snprintf(target, sizeof target, "step-%08ld", step);
    unlink(temporary);
    if (symlink(target, temporary) != 0 || rename(temporary, path) != 0)
        return bcop_status_errno(BCOP_IO, "%s: cannot link to %s", path, target);
    return BCOP_OK;
}

long bcop_rundir_linked(const char *run, const char *name) {
    char path[BCOP_PATH_MAX], target[64];
    join(path, run, name);
    const ssize_t length = readlink(path, target, sizeof target - 1);
    if (length < 0)
        return -1;
    target[length] = 0;
    return step_of(target);
}

static bool begins(const char *name, const char *with) {
    return strncmp(name, with, strlen(with)) == 0;
}

/* A rank that is killed while Open MPI opens a file leaves a semaphore of the node, which is named
 * after the file. */
static void forget_semaphore(const char *file) {
    char name[NAME_MAX + 16];
    snprintf(name, sizeof name, "/OMPIO_%s", file);
    sem_unlink(name);
}

void bcop_rundir_remove(const char *folder) {
    DIR *entries = opendir(folder);
    for (const struct dirent *entry; entries && (entry = readdir(entries));)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) {
            char path[BCOP_PATH_MAX];
            join(path, folder, entry->d_name);
            unlink(path);
            if (begins(entry->d_name, "state.h5."))
                forget_semaphore(entry->d_name);
        }
    if (entries)
        closedir(entries);
    rmdir(folder);
}

/* By a name that is no checkpoint's: a process killed meanwhile leaves nothing that looks like one.
 */
static void discard(const char *run, long step) {
    char path[BCOP_PATH_MAX], away[BCOP_PATH_MAX];
    bcop_rundir_step_path(run, step, "", path);
    bcop_rundir_step_path(run, step, ".old.tmp", away);
    if (rename(path, away) == 0)
        bcop_rundir_remove(away);
}

void bcop_rundir_prune(const char *run, int keep, long multiple) {
    long *steps;
    const int count = list_steps(run, &steps);
    const long best = bcop_rundir_linked(run, "best"), latest = bcop_rundir_linked(run, "latest");
    int committed = 0;
    for (int i = 0; i < count; i++) {
        if (!is_committed(run, steps[i]))
            continue;
        const bool marked = multiple > 0 && steps[i] % multiple == 0;
        if (++committed > keep && !marked && steps[i] != best && steps[i] != latest)
            discard(run, steps[i]);
    }
    free(steps);
}

static bool is_number(const char *text) {
    return *text && strspn(text, "0123456789") == strlen(text);
}

/* "step-NNNNNNNN.tmp", "step-NNNNNNNN.old.tmp" */
static bool is_half_step(const char *name) {
    char step[32];
    const size_t length = strcspn(name, ".");
    if (length >= sizeof step)
        return false;
    memcpy(step, name, length);
    step[length] = 0;
    return step_of(step) >= 0 &&
           (strcmp(name + length, ".tmp") == 0 || strcmp(name + length, ".old.tmp") == 0);
}

/* ".NAME.PID" of a file that was being written, "lock.HOST.PID" of one who watched the lock. */
static bool is_half_file(const char *name) {
    const char *last = strrchr(name, '.');
    if (!last || !is_number(last + 1))
        return false;
    const char *const written[] = {".config.yaml", ".metrics.jsonl"};
    for (int i = 0; i < 2; i++)
        if (begins(name, written[i]) && last == name + strlen(written[i]))
            return true;
    return begins(name, "lock.") && last > name + strlen("lock.");
}

/* Only names of our own shape: the folder may hold other people's files too. */
void bcop_rundir_clean(const char *run) {
    DIR *folder = opendir(run);
    for (const struct dirent *entry; folder && (entry = readdir(folder));) {
        char path[BCOP_PATH_MAX];
        join(path, run, entry->d_name);
        if (is_half_step(entry->d_name))
            bcop_rundir_remove(path);
        else if (is_half_file(entry->d_name))
            unlink(path);
    }
    if (folder)
        closedir(folder);
}

bcop_status bcop_rundir_resolve(const char *checkpoint, char folder[static BCOP_PATH_MAX]) {
    struct stat info;
    if (strlen(checkpoint) >= BCOP_PATH_MAX - 64)
        return bcop_status_fail(BCOP_NO_INPUT, "%.80s...: the path is too long", checkpoint);
    if (stat(checkpoint, &info) != 0)
        return bcop_status_errno(BCOP_NO_INPUT, "%s", checkpoint);
    strcpy(folder, checkpoint);
    if (!S_ISDIR(info.st_mode)) {
        char *slash = strrchr(folder, '/');
        const char *name = slash ? slash + 1 : folder;
        if (strcmp(name, "state.h5") != 0)
            return bcop_status_fail(BCOP_BAD_DATA, "%s: is no run, step folder or state.h5",
                                    checkpoint);
        if (slash)
            *slash = 0;
        else
            strcpy(folder, ".");
        return BCOP_OK;
    }
    if (exists(checkpoint, "state.h5"))
        return BCOP_OK;
    if (exists(checkpoint, "latest")) {
        join(folder, checkpoint, "latest");
        if (exists(folder, "state.h5"))
            return BCOP_OK;
    }
    const long newest = bcop_rundir_older(checkpoint, LONG_MAX, true);
    if (newest < 0)
        return bcop_status_fail(BCOP_NO_INPUT, "%s: holds no checkpoint", checkpoint);
    bcop_rundir_step_path(checkpoint, newest, "", folder);
    return BCOP_OK;
}
