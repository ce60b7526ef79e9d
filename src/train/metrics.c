#include "train/metrics.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NAME "metrics.jsonl"
enum { PATH_SIZE = 4096, FIRST_SIZE = 1 << 16, LINE_MAX_BYTES = 4096 };

struct bcop_metrics {
    char path[PATH_SIZE];
    int file;
    char *text; /* [size] what waits */
    size_t used, size;
    double written_at;
    bool failing; /* the disk took nothing the last time */
};

/* ---- reading ---- */

/* Kind and step of a line; false when it is not whole. */
static bool parse(const char *line, char kind[16], long *step) {
    json_t *object = strchr(line, '\n') ? json_loads(line, 0, NULL) : NULL;
    const json_t *number = json_object_get(object, "step");
    const char *text = json_string_value(json_object_get(object, "kind"));
    const bool whole = text && json_is_integer(number);
    if (whole) {
        snprintf(kind, 16, "%s", text);
        *step = (long)json_integer_value(number);
    }
    json_decref(object);
    return whole;
}

int bcop_metrics_evaluations(const char *run, long step) {
    char path[PATH_SIZE], kind[16], *line = NULL;
    size_t capacity = 0;
    int count = 0;
    long at;
    snprintf(path, sizeof path, "%s/" NAME, run);
    FILE *file = fopen(path, "r");
    while (file && getline(&line, &capacity, file) > 0)
        count += parse(line, kind, &at) && at == step && strcmp(kind, "eval") == 0;
    if (file)
        fclose(file);
    free(line);
    return count;
}

/* Copies what is to be kept; *cut: something is not. */
static bool filter(FILE *old, long step, long evaluated, FILE *out, bool *cut) {
    char *line = NULL, kind[16];
    size_t capacity = 0;
    long at;
    while (getline(&line, &capacity, old) > 0) {
        const bool keep =
            parse(line, kind, &at) && at <= (strcmp(kind, "train") == 0 ? step : evaluated);
        *cut |= !keep;
        if (keep)
            fputs(line, out);
    }
    free(line);
    return !ferror(old);
}

static bcop_status cut_back(const char *run, const char *path, long step, long evaluated) {
    FILE *old = fopen(path, "r");
    if (!old)
        return errno == ENOENT ? BCOP_OK : bcop_status_errno(BCOP_IO, "%s: cannot read", path);
    char *kept = NULL;
    size_t size = 0;
    bool cut = false;
    FILE *out = open_memstream(&kept, &size);
    bcop_status status = BCOP_OK;
    if (out && !filter(old, step, evaluated, out, &cut))
        status = bcop_status_fail(BCOP_IO, "%s: cannot read", path);
    fclose(old);
    if (!out || fclose(out) != 0)
        status = bcop_status_fail(BCOP_INTERNAL, "out of memory for %s", path);
    if (status == BCOP_OK && cut)
        status = bcop_file_write(run, NAME, kept, size);
    free(kept);
    return status;
}

/* ---- writing ---- */

bcop_status bcop_metrics_open(const char *run, long step, long evaluated, bcop_metrics **metrics) {
    *metrics = NULL;
    bcop_metrics *m = calloc(1, sizeof *m);
    if (m)
        m->text = malloc(FIRST_SIZE);
    if (!m || !m->text) {
        free(m);
        return bcop_status_fail(BCOP_INTERNAL, "out of memory for the metrics");
    }
    m->size = FIRST_SIZE;
    snprintf(m->path, sizeof m->path, "%s/" NAME, run);
    bcop_status status = cut_back(run, m->path, step, evaluated);
    m->file = open(m->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (status == BCOP_OK && m->file < 0)
        status = bcop_status_errno(BCOP_CANNOT_CREATE, "%s: cannot write", m->path);
    if (status == BCOP_OK)
        *metrics = m;
    else
        bcop_metrics_close(m);
    return status;
}

static bcop_status put(bcop_metrics *m) {
    size_t done = 0;
    BCOP_TRY(bcop_fault_at(BCOP_FAULT_METRICS_WRITE, NULL));
    const int failed = bcop_file_put(m->file, m->text, m->used, &done);
    const int error = errno;
    memmove(m->text, m->text + done, m->used - done); /* the rest may begin within a line */
    m->used -= done;
    errno = error;
    return failed ? bcop_status_errno(BCOP_IO, "%s: cannot write", m->path) : BCOP_OK;
}

static void write_out(bcop_metrics *m) {
    m->written_at = bcop_clock_seconds();
    const bcop_status status = put(m);
    if (status != BCOP_OK && !m->failing)
        bcop_log_warn("%s; its lines wait in memory", bcop_status_message());
    m->failing = status != BCOP_OK;
}

static bool has_room(const bcop_metrics *m) {
    return m->size - m->used >= LINE_MAX_BYTES;
}

void bcop_metrics_add(bcop_metrics *m, bool now, const char *format, ...) {
    if (!has_room(m) && !m->failing)
        write_out(m);
    if (!has_room(m)) {
        char *more = realloc(m->text, 2 * m->size);
        if (!more)
            return;
        m->text = more;
        m->size *= 2;
    }
    va_list args;
    va_start(args, format);
    const int length = vsnprintf(m->text + m->used, m->size - m->used, format, args);
    va_end(args);
    if (length > 0 && (size_t)length < m->size - m->used)
        m->used += (size_t)length;
    if (now || bcop_clock_seconds() - m->written_at > 1)
        write_out(m);
}

bcop_status bcop_metrics_sync(bcop_metrics *m) {
    BCOP_TRY(put(m));
    m->failing = false;
    if (fsync(m->file) != 0)
        return bcop_status_errno(BCOP_IO, "%s: cannot sync", m->path);
    return BCOP_OK;
}

void bcop_metrics_close(bcop_metrics *m) {
    if (!m)
        return;
    if (m->file >= 0) {
        put(m);
        close(m->file);
    }
    free(m->text);
    free(m);
}
