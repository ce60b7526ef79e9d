#include "train/attempts.h"

#include "base/clock.h"
#include "base/host.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Appends one line in one write, after the end of one that was cut. Takes the reference. */
static bcop_status append(const char *path, json_t *object) {
    char *text = object ? json_dumps(object, 0) : NULL;
    json_decref(object);
    if (!text)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory for %s", path);
    const int file = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (file < 0) {
        free(text);
        return bcop_status_errno(BCOP_IO, "%s: cannot write", path);
    }
    char last = '\n';
    const off_t size = lseek(file, 0, SEEK_END);
    if (size > 0 && pread(file, &last, 1, size - 1) != 1)
        last = '\n';
    bcop_status status = BCOP_OK;
    if (dprintf(file, "%s%s\n", last == '\n' ? "" : "\n", text) < 0 || fsync(file) != 0)
        status = bcop_status_errno(BCOP_IO, "%s: cannot write", path);
    close(file);
    free(text);
    return status;
}

static long integer(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_integer(value) ? (long)json_integer_value(value) : -1;
}

/* Ends that say that something broke, not that somebody stopped it or must change something. */
static bool is_crash(long code) {
    return code == BCOP_INTERNAL || code == BCOP_IO || code == BCOP_HANG;
}

/* The attempt that the lines read last are about. */
typedef struct reading {
    long number, step;
    bool open, failed;
} reading;

static void finish(bcop_attempts *a, const reading *r, long step) {
    if (r->number > 0)
        a->crashes = r->step == step && (r->open || r->failed) ? a->crashes + 1 : 0;
}

static void take_line(bcop_attempts *a, const json_t *line, reading *r, long step) {
    const char *kind = json_string_value(json_object_get(line, "kind"));
    const long number = integer(line, "attempt");
    if (!kind || number < 1)
        return; /* a line that was cut */
    if (strcmp(kind, "start") == 0) {
        finish(a, r, step);
        *r = (reading){.number = number, .step = integer(line, "step"), .open = true};
        a->number = number > a->number ? number : a->number;
    } else if (number == r->number) {
        r->open = false;
        r->failed = is_crash(integer(line, "code"));
    }
}

bcop_status bcop_attempts_read(bcop_attempts *a, const char *run, long step) {
    *a = (bcop_attempts){.number = 0};
    snprintf(a->path, sizeof a->path, "%s/attempts.jsonl", run);
    FILE *file = fopen(a->path, "r");
    if (!file && errno == ENOENT)
        return BCOP_OK;
    if (!file)
        return bcop_status_errno(BCOP_IO, "%s: cannot read", a->path);
    char *text = NULL;
    size_t capacity = 0;
    reading r = {.number = 0};
    while (getline(&text, &capacity, file) > 0) {
        json_t *line = json_loads(text, 0, NULL);
        take_line(a, line, &r, step);
        json_decref(line);
    }
    finish(a, &r, step);
    free(text);
    fclose(file);
    return BCOP_OK;
}

bcop_status bcop_attempts_start(bcop_attempts *a, int ranks, long step, long total) {
    char now[21];
    bcop_clock_stamp(now);
    BCOP_TRY(append(a->path, json_pack("{s:s, s:I, s:s, s:s, s:I, s:s?, s:i, s:I, s:I}", "kind",
                                       "start", "attempt", (json_int_t)(a->number + 1), "time", now,
                                       "host", bcop_host_name(), "pid", (json_int_t)getpid(), "job",
                                       bcop_host_job(), "ranks", ranks, "step", (json_int_t)step,
                                       "total", (json_int_t)total)));
    a->number++;
    a->started = true;
    return BCOP_OK;
}

void bcop_attempts_end(bcop_attempts *a, int code, long step, long steps) {
    if (!a->started)
        return;
    char now[21], message[1024];
    snprintf(message, sizeof message, "%s", bcop_status_message());
    bcop_clock_stamp(now);
    if (append(a->path, json_pack("{s:s, s:I, s:s, s:i, s:I, s:I}", "kind", "end", "attempt",
                                  (json_int_t)a->number, "time", now, "code", code, "step",
                                  (json_int_t)step, "steps", (json_int_t)steps)) != BCOP_OK)
        bcop_log_warn("%s", bcop_status_message());
    bcop_status_fail(BCOP_OK, "%s", message);
    a->started = false;
}
