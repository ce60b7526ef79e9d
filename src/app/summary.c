#include "app/summary.h"

#include "app/json.h"
#include "base/log.h"

#include <math.h>
#include <string.h>

/* The radius's place among an evaluation's, -1 without it. */
static int place(const bcop_history_evaluation *e, const char *eps) {
    for (int i = 0; i < e->eps.count; i++)
        if (strcmp(e->eps.text[i], eps) == 0)
            return i;
    return -1;
}

typedef double reader(const bcop_history_evaluation *e, const char *eps);

static double read_loss(const bcop_history_evaluation *e, const char *eps) {
    (void)eps;
    return e->loss;
}

static double read_clean(const bcop_history_evaluation *e, const char *eps) {
    (void)eps;
    return e->clean;
}

static double read_certified(const bcop_history_evaluation *e, const char *eps) {
    const int i = place(e, eps);
    return i < 0 ? NAN : e->certified[i];
}

static bcop_summary_mean mean_of(const bcop_summary *s, const bcop_history history[], reader *read,
                                 const char *eps) {
    double sum = 0, squares = 0;
    for (int i = 0; i < s->runs; i++)
        sum += read(bcop_history_evaluated(&history[i], s->split), eps);
    const double mean = sum / s->runs;
    for (int i = 0; i < s->runs; i++) {
        const double d = read(bcop_history_evaluated(&history[i], s->split), eps) - mean;
        squares += d * d;
    }
    return (bcop_summary_mean){mean,
                               s->runs > 1 ? sqrt(squares / (s->runs - 1) / s->runs) : (double)NAN};
}

static const char *common_split(const bcop_history history[], int count) {
    static const char *const splits[] = {"test", "holdout"};
    for (int k = 0; k < 2; k++) {
        int with = 0;
        while (with < count && bcop_history_evaluated(&history[with], splits[k]))
            with++;
        if (with == count)
            return splits[k];
    }
    return NULL;
}

void bcop_summary_make(bcop_summary *s, const bcop_history history[], int count) {
    *s = (bcop_summary){.runs = count, .split = common_split(history, count)};
    for (int i = 0; i < count; i++)
        s->finished += strcmp(bcop_history_state(&history[i]), "finished") == 0;
    if (!s->split)
        return;
    s->loss = mean_of(s, history, read_loss, NULL);
    s->clean = mean_of(s, history, read_clean, NULL);
    s->eps = &bcop_history_evaluated(&history[0], s->split)->eps;
    for (int i = 0; i < s->eps->count; i++) {
        s->certified[i] = mean_of(s, history, read_certified, s->eps->text[i]);
        s->has[i] = !isnan(s->certified[i].mean);
    }
    for (int i = 0; i < count; i++) {
        const long step = bcop_history_evaluated(&history[i], s->split)->step;
        s->first = i == 0 || step < s->first ? step : s->first;
        s->last = i == 0 || step > s->last ? step : s->last;
    }
}

static void say(const char *what, const char *eps, bcop_summary_mean m, double unit,
                const char *sign) {
    if (isnan(m.error))
        bcop_log_info("%s%-10s %.4f%s", what, eps, unit * m.mean, sign);
    else
        bcop_log_info("%s%-10s %.4f +- %.4f%s", what, eps, unit * m.mean, unit * m.error, sign);
}

void bcop_summary_text(const bcop_summary *s) {
    if (!s->split) {
        bcop_log_info("%d runs, %d finished: no evaluation that they all have", s->runs,
                      s->finished);
        return;
    }
    char steps[64];
    snprintf(steps, sizeof steps, s->first == s->last ? "%ld" : "%ld to %ld", s->first, s->last);
    bcop_log_info("%d runs, %d finished, %s at step %s, mean +- standard error:", s->runs,
                  s->finished, s->split, steps);
    say("  loss          ", "", s->loss, 1, "");
    say("  clean         ", "", s->clean, 100, " %");
    for (int i = 0; i < s->eps->count; i++)
        if (s->has[i])
            say("  certified at  ", s->eps->text[i], s->certified[i], 100, " %");
}

static json_t *pack(bcop_summary_mean m) {
    return json_pack("{s:o, s:o}", "mean", bcop_json_real(m.mean), "error",
                     bcop_json_real(m.error));
}

json_t *bcop_summary_json(const bcop_summary *s) {
    json_t *out =
        json_pack("{s:i, s:i, s:s?}", "runs", s->runs, "finished", s->finished, "split", s->split);
    if (!out || !s->split)
        return out;
    json_t *certified = json_object();
    for (int i = 0; i < s->eps->count; i++)
        if (s->has[i])
            json_object_set_new(certified, s->eps->text[i], pack(s->certified[i]));
    json_object_set_new(out, "steps",
                        json_pack("[I, I]", (json_int_t)s->first, (json_int_t)s->last));
    json_object_set_new(out, "loss", pack(s->loss));
    json_object_set_new(out, "clean", pack(s->clean));
    json_object_set_new(out, "certified", certified);
    return out;
}
