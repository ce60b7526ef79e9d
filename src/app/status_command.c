/* bcop status and bcop stop: a run from outside, by its files alone. */
#include "app/arguments.h"
#include "app/command.h"
#include "app/json.h"
#include "app/summary.h"
#include "base/log.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- for machines ---- */

static json_t *text_or_null(const char *text) {
    return *text ? json_string(text) : json_null();
}

static json_t *attempts_json(const bcop_history *h) {
    json_t *list = json_array();
    for (long i = 0; i < h->attempts; i++) {
        const bcop_history_attempt *a = &h->attempt[i];
        json_t *object = json_pack(
            "{s:I, s:o, s:o, s:I, s:o, s:I, s:I}", "attempt", (json_int_t)a->number, "start",
            text_or_null(a->start), "host", text_or_null(a->host), "pid", (json_int_t)a->pid, "job",
            text_or_null(a->job), "ranks", (json_int_t)a->ranks, "step", (json_int_t)a->step);
        if (a->ended)
            json_object_update_new(object,
                                   json_pack("{s:o, s:i, s:I, s:I}", "end", text_or_null(a->end),
                                             "code", a->code, "end_step", (json_int_t)a->end_step,
                                             "steps", (json_int_t)a->steps));
        json_object_set_new(object, "how", json_string(bcop_history_end(h, a)));
        json_array_append_new(list, object);
    }
    return list;
}

static json_t *checkpoint_json(const bcop_history *h) {
    char folder[BCOP_PATH_MAX];
    if (h->last_checkpoint < 0)
        return json_null();
    bcop_rundir_step_path(h->run, h->last_checkpoint, "", folder);
    return json_pack("{s:I, s:s, s:o}", "step", (json_int_t)h->last_checkpoint, "folder", folder,
                     "created", text_or_null(h->saved));
}

static json_t *evaluation_json(const bcop_history *h, const char *split) {
    const bcop_history_evaluation *e = bcop_history_evaluated(h, split);
    if (!e)
        return json_null();
    json_t *certified = json_object();
    for (int i = 0; i < e->eps.count; i++)
        json_object_set_new(certified, e->eps.text[i], bcop_json_real(e->certified[i]));
    return json_pack("{s:I, s:I, s:o, s:o, s:o}", "step", (json_int_t)e->step, "examples",
                     (json_int_t)e->examples, "loss", bcop_json_real(e->loss), "clean",
                     bcop_json_real(e->clean), "certified", certified);
}

static json_t *run_json(const bcop_history *h) {
    double speed;
    const long step = bcop_history_last(h, &speed);
    const double left = bcop_history_left(h);
    const bcop_history_step *last = h->steps > 0 ? &h->step[h->steps - 1] : NULL;
    json_t *out =
        json_pack("{s:s, s:s, s:s, s:I, s:o, s:I, s:o, s:o, s:o, s:o, s:b}", "run", h->run, "name",
                  h->name, "state", bcop_history_state(h), "step", (json_int_t)step, "steps",
                  h->total > 0 ? json_integer(h->total) : json_null(), "epoch",
                  (json_int_t)(last ? last->epoch : 0), "epochs",
                  h->epochs > 0 ? json_integer(h->epochs) : json_null(), "eta_seconds",
                  left >= 0 ? bcop_json_real(left) : json_null(), "last_checkpoint",
                  checkpoint_json(h), "attempts", attempts_json(h), "stop_requested", h->stopping);
    if (!out)
        return NULL;
    json_object_set_new(out, "loss", last ? bcop_json_real(last->loss) : json_null());
    json_object_set_new(out, "accuracy", last ? bcop_json_real(last->accuracy) : json_null());
    json_object_set_new(out, "images_per_second", bcop_json_real(speed));
    json_object_set_new(out, "holdout", evaluation_json(h, "holdout"));
    json_object_set_new(out, "test", evaluation_json(h, "test"));
    return out;
}

/* ---- for people ---- */

static void say_evaluation(const bcop_history *h, const char *split) {
    const bcop_history_evaluation *e = bcop_history_evaluated(h, split);
    if (!e)
        return;
    char certified[1024] = "";
    for (int i = 0, used = 0; i < e->eps.count && used < (int)sizeof certified - 80; i++)
        used += snprintf(certified + used, sizeof certified - (size_t)used,
                         "  certified at %s %.2f %%", e->eps.text[i], 100 * e->certified[i]);
    bcop_log_info("  %-8s step %ld: loss %.4f  clean %.2f %%%s", split, e->step, e->loss,
                  100 * e->clean, certified);
}

static void say_attempt(const bcop_history *h, const bcop_history_attempt *a) {
    char job[96] = "", code[48] = "";
    if (*a->job)
        snprintf(job, sizeof job, ", job %s", a->job);
    if (a->ended)
        snprintf(code, sizeof code, " (%d), %ld steps", a->code, a->steps);
    bcop_log_info("  attempt %ld  %s  %ld ranks from %s%s, from step %ld: %s%s", a->number,
                  a->start, a->ranks, a->host, job, a->step, bcop_history_end(h, a), code);
}

static void say_run(const bcop_history *h) {
    double speed;
    const long step = bcop_history_last(h, &speed);
    const double left = bcop_history_left(h);
    char of[32] = "", eta[64] = "";
    if (h->total > 0)
        snprintf(of, sizeof of, " of %ld", h->total);
    if (left > 0)
        snprintf(eta, sizeof eta, "  %ld:%02ld:%02ld left", (long)left / 3600, (long)left / 60 % 60,
                 (long)left % 60);
    bcop_log_info("%s: %s%s", h->run, bcop_history_state(h),
                  h->stopping ? ", a stop is asked for" : "");
    if (h->steps > 0) {
        const bcop_history_step *last = &h->step[h->steps - 1];
        bcop_log_info("  step %ld%s, epoch %ld of %d: loss %.4f  accuracy %.3f  %.0f images/s%s",
                      step, of, last->epoch, h->epochs, last->loss, last->accuracy, speed, eta);
    }
    say_evaluation(h, "holdout");
    say_evaluation(h, "test");
    if (h->last_checkpoint >= 0)
        bcop_log_info("  last checkpoint: step %ld, %s", h->last_checkpoint,
                      *h->saved ? h->saved : "its manifest cannot be read");
    else
        bcop_log_info("  no checkpoint yet");
    for (long i = 0; i < h->attempts; i++)
        say_attempt(h, &h->attempt[i]);
}

/* ---- status ---- */

/* The runs that could be read; `several` were asked for. */
typedef struct runs {
    const bcop_history *history;
    int count;
    bool several, json;
} runs;

/* What went wrong first is the command's error; the other runs are gone on with. */
typedef struct failure {
    bcop_status status;
    char message[1024];
} failure;

static void keep(failure *f, bcop_status status) {
    if (status == BCOP_OK)
        return;
    if (f->status != BCOP_OK) {
        bcop_log_warn("%s", bcop_status_message());
        return;
    }
    f->status = status;
    snprintf(f->message, sizeof f->message, "%s", bcop_status_message());
}

typedef void answer(const runs *r, failure *f);

static bcop_status print_json(const runs *r) {
    if (!r->several)
        return bcop_json_print(run_json(&r->history[0]));
    bcop_summary summary;
    bcop_summary_make(&summary, r->history, r->count);
    json_t *list = json_array();
    for (int i = 0; i < r->count; i++)
        json_array_append_new(list, run_json(&r->history[i]));
    return bcop_json_print(
        json_pack("{s:o, s:o}", "runs", list, "summary", bcop_summary_json(&summary)));
}

static void print_text(const runs *r) {
    bcop_summary summary;
    for (int i = 0; i < r->count; i++)
        say_run(&r->history[i]);
    if (!r->several)
        return;
    bcop_summary_make(&summary, r->history, r->count);
    bcop_summary_text(&summary);
}

static void print(const runs *r, failure *f) {
    if (r->json)
        keep(f, print_json(r));
    else
        print_text(r);
}

static bcop_status read_all(const char *const run[], int count, bool json, answer *give) {
    bcop_history *history = calloc((size_t)count, sizeof *history);
    if (!history)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory for %d runs", count);
    runs r = {.history = history, .several = count > 1, .json = json};
    failure f = {.status = BCOP_OK};
    for (int i = 0; i < count; i++) {
        bcop_history *h = &history[r.count];
        const bcop_status status = bcop_history_read(h, run[i]);
        keep(&f, status);
        if (status == BCOP_OK)
            r.count++;
        else
            bcop_history_free(h);
    }
    if (r.count > 0)
        give(&r, &f);
    for (int i = 0; i < r.count; i++)
        bcop_history_free(&history[i]);
    free(history);
    return f.status == BCOP_OK ? BCOP_OK : bcop_status_fail(f.status, "%s", f.message);
}

static bcop_status run_with(int argc, char **argv, const bcop_argument options[], const bool *json,
                            answer *give) {
    const char **run = calloc((size_t)argc, sizeof *run);
    if (!run)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory");
    int count;
    bcop_status status =
        bcop_arguments_read_list(argc, argv, options, 1, &(const char *){"RUN"}, argc, run, &count);
    if (status == BCOP_OK)
        status = read_all(run, count, *json, give);
    free(run);
    return status;
}

static bcop_status run_status(const bcop_comm *comm, int argc, char **argv) {
    (void)comm;
    bool json = false;
    const bcop_argument options[] = {{"--json", NULL, &json, NULL}, {0}};
    return run_with(argc, argv, options, &json, print);
}

/* ---- stop ---- */

/* Not running, it may still be started, also after a failure: by a pending job, a chain's next
 * link. */
static bcop_status ask(const bcop_history *h) {
    const char *state = bcop_history_state(h);
    if (!h->running && strcmp(state, "finished") == 0) {
        bcop_log_info("%s is %s, not running: nothing to stop", h->run, state);
        return BCOP_OK;
    }
    char path[BCOP_PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/stop", h->run);
    const int file = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
    if (file < 0)
        return bcop_status_errno(BCOP_CANNOT_CREATE, "%s", path);
    close(file);
    if (h->running)
        bcop_log_info("%s is asked to save a checkpoint and stop; bcop status shows when it has",
                      h->run);
    else
        bcop_log_info("%s is %s, not running: whatever starts it again will stop at its first step "
                      "(when nothing will, remove %s)",
                      h->run, state, path);
    return BCOP_OK;
}

static void ask_all(const runs *r, failure *f) {
    for (int i = 0; i < r->count; i++)
        keep(f, ask(&r->history[i]));
}

static bcop_status run_stop(const bcop_comm *comm, int argc, char **argv) {
    (void)comm;
    const bool json = false;
    const bcop_argument options[] = {{0}};
    return run_with(argc, argv, options, &json, ask_all);
}

const bcop_command bcop_command_status = {
    .name = "status",
    .usage = "RUN... [--json]",
    .help = "how far a run is and how its attempts ended; of several, mean and standard error",
    .run = run_status,
};

const bcop_command bcop_command_stop = {
    .name = "stop",
    .usage = "RUN...",
    .help = "let a run save a checkpoint and stop; nothing restarts it by itself",
    .run = run_stop,
};
