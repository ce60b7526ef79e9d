#include "train/history.h"

#include "base/host.h"
#include "ckpt/manifest.h"
#include "train/experiment.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <math.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { LOCK_SECONDS = 60, SPEED_STEPS = 50, CONFIG_LIMIT = (1 << 20) + 1 };

static void take_text(const json_t *object, const char *key, char *text, size_t size) {
    const char *value = json_string_value(json_object_get(object, key));
    snprintf(text, size, "%s", value ? value : "");
}

/* Numbers that no run has are 0: sums and products of those that are left cannot overflow. */
static long integer(const json_t *object, const char *key) {
    const json_int_t value = json_integer_value(json_object_get(object, key));
    return value >= INT_MIN && value <= INT_MAX ? (long)value : 0;
}

static double real(const json_t *object, const char *key) {
    const json_t *value = json_object_get(object, key);
    return json_is_number(value) ? json_number_value(value) : NAN;
}

/* Room for one more; lists double. */
static void *grow(void *list, long count, size_t size) {
    if (count & (count - 1))
        return list;
    void *more = realloc(list, (size_t)(count ? 2 * count : 1) * size);
    if (!more)
        abort(); /* a few bytes for each line of a log */
    return more;
}

/* ---- metrics.jsonl ---- */

static void take_step(bcop_history *h, const json_t *line) {
    h->step = grow(h->step, h->steps, sizeof *h->step);
    h->step[h->steps++] = (bcop_history_step){.step = integer(line, "step"),
                                              .epoch = integer(line, "epoch"),
                                              .loss = real(line, "loss"),
                                              .accuracy = real(line, "accuracy"),
                                              .images_per_second = real(line, "images_per_second")};
}

static void take_certified(bcop_history_evaluation *e, json_t *certified) {
    const char *key;
    json_t *value;
    json_object_foreach(certified, key, value) {
        const int i = e->eps.count;
        if (i == BCOP_REALS_MAX || strlen(key) >= sizeof e->eps.text[0] ||
            !bcop_option_parse_real(key, &e->eps.value[i]))
            continue;
        strcpy(e->eps.text[i], key);
        e->certified[i] = real(certified, key);
        e->eps.count++;
    }
}

static void take_evaluation(bcop_history *h, const json_t *line) {
    h->evaluation = grow(h->evaluation, h->evaluations, sizeof *h->evaluation);
    bcop_history_evaluation *e = &h->evaluation[h->evaluations++];
    *e = (bcop_history_evaluation){.step = integer(line, "step"),
                                   .epoch = integer(line, "epoch"),
                                   .examples = integer(line, "examples"),
                                   .loss = real(line, "loss"),
                                   .clean = real(line, "clean"),
                                   .lipschitz = real(line, "lipschitz")};
    take_text(line, "split", e->split, sizeof e->split);
    take_certified(e, json_object_get(line, "certified"));
}

static void take_metric(bcop_history *h, const json_t *line, const char *kind) {
    if (strcmp(kind, "train") == 0)
        take_step(h, line);
    else if (strcmp(kind, "eval") == 0)
        take_evaluation(h, line);
}

/* ---- attempts.jsonl ---- */

static void take_attempt(bcop_history *h, const json_t *line, const char *kind) {
    if (strcmp(kind, "start") == 0) {
        h->attempt = grow(h->attempt, h->attempts, sizeof *h->attempt);
        bcop_history_attempt *a = &h->attempt[h->attempts++];
        *a = (bcop_history_attempt){.number = integer(line, "attempt"),
                                    .pid = integer(line, "pid"),
                                    .ranks = integer(line, "ranks"),
                                    .step = integer(line, "step")};
        h->total = integer(line, "total"); /* the newest start's */
        take_text(line, "time", a->start, sizeof a->start);
        take_text(line, "host", a->host, sizeof a->host);
        take_text(line, "job", a->job, sizeof a->job);
    } else if (strcmp(kind, "end") == 0 && h->attempts > 0 &&
               h->attempt[h->attempts - 1].number == integer(line, "attempt")) {
        bcop_history_attempt *a = &h->attempt[h->attempts - 1];
        a->ended = true;
        a->code = (int)integer(line, "code");
        a->end_step = integer(line, "step");
        a->steps = integer(line, "steps");
        take_text(line, "time", a->end, sizeof a->end);
    }
}

/* ---- the files ---- */

typedef void taker(bcop_history *h, const json_t *line, const char *kind);

static bcop_status read_lines(bcop_history *h, const char *name, taker *take) {
    char path[BCOP_PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/%s", h->run, name);
    FILE *file = fopen(path, "r");
    if (!file && errno == ENOENT)
        return BCOP_OK;
    if (!file)
        return bcop_status_errno(BCOP_IO, "%s", path);
    char *text = NULL;
    size_t capacity = 0;
    while (getline(&text, &capacity, file) > 0) {
        json_t *line = json_loads(text, 0, NULL);
        const char *kind = json_string_value(json_object_get(line, "kind"));
        if (kind)
            take(h, line, kind);
        json_decref(line);
    }
    const bool bad = ferror(file);
    free(text);
    fclose(file);
    return bad ? bcop_status_fail(BCOP_IO, "%s: cannot be read", path) : BCOP_OK;
}

static bcop_status take_config(bcop_history *h, const char *path, const char *text, size_t length) {
    bcop_config *config;
    BCOP_TRY(bcop_config_parse(text, length, path, &config));
    bcop_experiment e;
    BCOP_TRY(bcop_experiment_read(config, &e));
    memcpy(h->name, e.root.name, sizeof h->name);
    h->batch = e.train.batch;
    h->epochs = e.train.epochs;
    bcop_experiment_free(&e);
    return BCOP_OK;
}

/* A job that waits has made its folder; the configuration comes with the first start. */
static bool waits_to_start(bcop_history *h) {
    char path[BCOP_PATH_MAX + 32], absolute[PATH_MAX];
    snprintf(path, sizeof path, "%s/job.sbatch", h->run);
    if (access(path, F_OK) != 0)
        return false;
    const char *slash = realpath(h->run, absolute) ? strrchr(absolute, '/') : NULL;
    snprintf(h->name, sizeof h->name, "%s", slash ? slash + 1 : "");
    return true;
}

static bcop_status read_config(bcop_history *h) {
    char path[BCOP_PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/config.yaml", h->run);
    FILE *file = fopen(path, "r");
    if (!file && errno == ENOENT && waits_to_start(h))
        return BCOP_OK;
    if (!file)
        return bcop_status_errno(BCOP_IO, "%s: is no run: %s", h->run, path);
    char *text = malloc(CONFIG_LIMIT);
    const size_t length = text ? fread(text, 1, CONFIG_LIMIT, file) : 0;
    fclose(file);
    const bcop_status status = text ? take_config(h, path, text, length)
                                    : bcop_status_fail(BCOP_INTERNAL, "out of memory for %s", path);
    free(text);
    return status;
}

/* The first line of a new epoch says how long epochs are; before it, the start's `total`. */
static void find_epochs(bcop_history *h) {
    for (long i = 1; i < h->steps && !h->steps_per_epoch; i++)
        if (h->step[i].epoch > 0 && h->step[i].epoch == h->step[i - 1].epoch + 1)
            h->steps_per_epoch = h->step[i].step / h->step[i].epoch;
    if (h->steps == 1 && h->step[0].epoch > 0)
        h->steps_per_epoch = h->step[0].step / h->step[0].epoch;
    if (h->total <= 0)
        h->total = h->steps_per_epoch * h->epochs;
    else if (!h->steps_per_epoch && h->epochs > 0)
        h->steps_per_epoch = h->total / h->epochs;
}

static void find_checkpoint(bcop_history *h) {
    h->last_checkpoint = bcop_rundir_older(h->run, LONG_MAX, true);
    if (h->last_checkpoint < 0)
        return;
    char folder[BCOP_PATH_MAX];
    bcop_rundir_step_path(h->run, h->last_checkpoint, "", folder);
    bcop_manifest manifest;
    if (bcop_manifest_read(folder, &manifest) == BCOP_OK) {
        strcpy(h->saved, manifest.created);
        bcop_manifest_free(&manifest);
    }
}

/* A holder refreshes its lock; one on this host must also be there. */
static void find_holder(bcop_history *h) {
    char path[BCOP_PATH_MAX + 32], host[256];
    struct stat info;
    snprintf(path, sizeof path, "%s/stop", h->run);
    h->stopping = access(path, F_OK) == 0;
    snprintf(path, sizeof path, "%s/lock", h->run);
    if (stat(path, &info) != 0 || time(NULL) - info.st_mtim.tv_sec > LOCK_SECONDS)
        return;
    json_t *lock = json_load_file(path, JSON_DISABLE_EOF_CHECK, NULL);
    take_text(lock, "host", host, sizeof host);
    const pid_t pid = (pid_t)integer(lock, "pid");
    json_decref(lock);
    const bool here = strcmp(host, bcop_host_name()) == 0;
    h->running = pid > 0 && (!here || kill(pid, 0) == 0 || errno == EPERM);
}

bcop_status bcop_history_read(bcop_history *h, const char *run) {
    *h = (bcop_history){.last_checkpoint = -1};
    if (strlen(run) >= sizeof h->run - 64)
        return bcop_status_fail(BCOP_NO_INPUT, "%.80s...: the path is too long", run);
    strcpy(h->run, run);
    if (access(run, F_OK) != 0)
        return bcop_status_errno(BCOP_IO, "%s", run);
    BCOP_TRY(read_config(h));
    BCOP_TRY(read_lines(h, "metrics.jsonl", take_metric));
    BCOP_TRY(read_lines(h, "attempts.jsonl", take_attempt));
    find_epochs(h);
    find_checkpoint(h);
    find_holder(h);
    return BCOP_OK;
}

void bcop_history_free(bcop_history *h) {
    free(h->step);
    free(h->evaluation);
    free(h->attempt);
}

/* ---- what it means ---- */

static bool is_finished(const bcop_history *h) {
    double speed;
    return h->total > 0 && bcop_history_last(h, &speed) >= h->total;
}

const char *bcop_history_state(const bcop_history *h) {
    if (h->running)
        return "running";
    if (h->attempts == 0)
        return is_finished(h) ? "finished" : h->steps == 0 ? "new" : "interrupted";
    const bcop_history_attempt *a = &h->attempt[h->attempts - 1];
    if (!a->ended)
        return "killed";
    switch (a->code) {
    case BCOP_OK:
        return is_finished(h) ? "finished" : "paused";
    case BCOP_INTERRUPTED:
        return "interrupted";
    case BCOP_STOPPED:
        return "stopped";
    default:
        return "failed";
    }
}

const char *bcop_history_end(const bcop_history *h, const bcop_history_attempt *a) {
    if (!a->ended)
        return h->running && a == &h->attempt[h->attempts - 1]
                   ? "running"
                   : "killed, or its node was lost, with no time to say so";
    switch (a->code) {
    case BCOP_OK:
        return h->total > 0 && a->end_step >= h->total ? "finished" : "reached --max-steps";
    case BCOP_INTERRUPTED:
        return "interrupted by the system, checkpoint saved";
    case BCOP_STOPPED:
        return "stopped by a person, checkpoint saved";
    case BCOP_DIVERGED:
        return "diverged";
    case BCOP_HANG:
        return "hung";
    case BCOP_IO:
        return "failed to read or write";
    default:
        return "failed";
    }
}

long bcop_history_last(const bcop_history *h, double *images_per_second) {
    double seconds = 0; /* for each image: the mean of speeds would weigh fast steps most */
    long count = 0;
    for (long i = h->steps > SPEED_STEPS ? h->steps - SPEED_STEPS : 0; i < h->steps; i++)
        if (h->step[i].images_per_second > 0) {
            seconds += 1 / h->step[i].images_per_second;
            count++;
        }
    *images_per_second = count > 0 ? (double)count / seconds : 0;
    return h->steps > 0 ? h->step[h->steps - 1].step : 0;
}

double bcop_history_left(const bcop_history *h) {
    double speed;
    const long step = bcop_history_last(h, &speed);
    if (h->total == 0 || speed <= 0)
        return -1;
    const double seconds = step < h->total ? (double)(h->total - step) * h->batch / speed : 0;
    return seconds < 1e12 ? seconds : -1;
}

const bcop_history_evaluation *bcop_history_evaluated(const bcop_history *h, const char *split) {
    for (long i = h->evaluations - 1; i >= 0; i--)
        if (strcmp(h->evaluation[i].split, split) == 0)
            return &h->evaluation[i];
    return NULL;
}
