/* bcop plot: figures of a run from its files. */
#include "app/arguments.h"
#include "app/command.h"
#include "app/gnuplot.h"
#include "app/plot_script.h"
#include "base/log.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

typedef struct arguments {
    const char *run, *curve, *profile, *out;
} arguments;

/* ---- the curve: a CSV with columns `eps` and `certified` ---- */

static int column(const char *header, const char *name) {
    const size_t length = strlen(name);
    int index = 0;
    for (const char *p = header; *p; p += *p == ',', index++) {
        const size_t field = strcspn(p, ",\r\n");
        if (field == length && strncmp(p, name, length) == 0)
            return index;
        p += field;
        if (*p != ',')
            break;
    }
    return -1;
}

static bool number(const char *line, int index, double *value) {
    for (; index > 0; index--) {
        line = strchr(line, ',');
        if (!line)
            return false;
        line++;
    }
    char *end;
    *value = strtod(line, &end);
    return end != line;
}

static bcop_status read_rows(FILE *file, const char *path, bcop_plot_curve *curve) {
    char line[1024];
    int eps = -1, certified = -1;
    if (fgets(line, sizeof line, file)) {
        eps = column(line, "eps");
        certified = column(line, "certified");
    }
    if (eps < 0 || certified < 0)
        return bcop_status_fail(BCOP_BAD_DATA, "%s: no columns eps and certified", path);
    for (long room = 0; fgets(line, sizeof line, file); curve->count++) {
        if (curve->count == room) {
            room = 2 * room + 256;
            double *more[2] = {realloc(curve->eps, (size_t)room * sizeof(double)),
                               realloc(curve->certified, (size_t)room * sizeof(double))};
            curve->eps = more[0] ? more[0] : curve->eps;
            curve->certified = more[1] ? more[1] : curve->certified;
            if (!more[0] || !more[1])
                return bcop_status_fail(BCOP_INTERNAL, "out of memory for %s", path);
        }
        if (!number(line, eps, &curve->eps[curve->count]) ||
            !number(line, certified, &curve->certified[curve->count]))
            return bcop_status_fail(BCOP_BAD_DATA, "%s: line %ld has no numbers", path,
                                    curve->count + 2);
    }
    return BCOP_OK;
}

static bcop_status read_curve(const char *path, bcop_plot_curve *curve) {
    if (!path)
        return BCOP_OK;
    FILE *file = fopen(path, "r");
    if (!file)
        return bcop_status_errno(BCOP_IO, "%s", path);
    const bcop_status status = read_rows(file, path, curve);
    fclose(file);
    return status;
}

/* ---- the profile: a Chrome trace, its complete events summed by name ---- */

static void add_event(bcop_plot_times *times, const json_t *event) {
    const char *name = json_string_value(json_object_get(event, "name"));
    const char *kind = json_string_value(json_object_get(event, "ph"));
    const char *category = json_string_value(json_object_get(event, "cat"));
    const double microseconds = json_number_value(json_object_get(event, "dur"));
    int i = 0;
    if (!name || !kind || strcmp(kind, "X") != 0 || !(microseconds >= 0))
        return;
    if (category && strcmp(category, "phase") != 0)
        return; /* `train --profile` also has what lies inside the phases */
    while (i < times->count && strncmp(times->name[i], name, sizeof times->name[i] - 1) != 0)
        i++;
    if (i == BCOP_PLOT_PARTS)
        return;
    if (i == times->count)
        snprintf(times->name[times->count++], sizeof times->name[i], "%s", name);
    times->seconds[i] += microseconds / 1e6;
}

static bcop_status read_profile(const char *path, bcop_plot_times *times) {
    if (!path)
        return BCOP_OK;
    json_error_t error;
    json_t *root = json_load_file(path, 0, &error);
    if (!root && error.line < 0)
        return bcop_status_errno(BCOP_IO, "%s", path);
    if (!root)
        return bcop_status_fail(BCOP_BAD_DATA, "%s:%d: %s", path, error.line, error.text);
    const json_t *events = json_is_array(root) ? root : json_object_get(root, "traceEvents");
    for (size_t i = 0; i < json_array_size(events); i++)
        add_event(times, json_array_get(events, i));
    json_decref(root);
    if (times->count == 0)
        return bcop_status_fail(BCOP_BAD_DATA, "%s: holds no complete trace event", path);
    return BCOP_OK;
}

/* ---- plot ---- */

static bcop_status draw(const bcop_history *history, const bcop_plot_curve *curve,
                        const bcop_plot_times *times, const char *folder) {
    char *script = NULL;
    size_t length = 0;
    FILE *out = open_memstream(&script, &length);
    if (!out)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory for the figures");
    bcop_plot_script_write(out, history, curve, times);
    bcop_status status = BCOP_OK;
    if (fclose(out) != 0)
        status = bcop_status_fail(BCOP_INTERNAL, "out of memory for the figures");
    if (status == BCOP_OK)
        status = bcop_gnuplot_run(folder, script, length);
    free(script);
    return status;
}

static bcop_status plot(const arguments *a, bcop_history *history, bcop_plot_curve *curve,
                        bcop_plot_times *times) {
    char folder[BCOP_PATH_MAX + 16];
    BCOP_TRY(bcop_history_read(history, a->run));
    if (history->steps == 0)
        return bcop_status_fail(BCOP_NO_INPUT, "%s: has no metrics yet", a->run);
    BCOP_TRY(read_curve(a->curve, curve));
    BCOP_TRY(read_profile(a->profile, times));
    snprintf(folder, sizeof folder, "%s%s", a->out ? a->out : a->run, a->out ? "" : "/plots");
    BCOP_TRY(bcop_rundir_make(folder));
    BCOP_TRY(draw(history, curve, times, folder));
    bcop_log_info("%s: loss%s, radius, time as .svg and .png", folder,
                  history->evaluations > 0 ? ", accuracy" : "");
    return BCOP_OK;
}

static bcop_status run(const bcop_comm *comm, int argc, char **argv) {
    (void)comm;
    arguments a = {0};
    const bcop_argument options[] = {{"--curve", &a.curve, NULL, NULL},
                                     {"--profile", &a.profile, NULL, NULL},
                                     {"--out", &a.out, NULL, NULL},
                                     {0}};
    BCOP_TRY(bcop_arguments_read(argc, argv, options, "RUN", &a.run));
    bcop_history history = {0};
    bcop_plot_curve curve = {0};
    bcop_plot_times times = {0};
    const bcop_status status = plot(&a, &history, &curve, &times);
    bcop_history_free(&history);
    free(curve.eps);
    free(curve.certified);
    return status;
}

const bcop_command bcop_command_plot = {
    .name = "plot",
    .usage = "RUN [--curve FILE.csv] [--profile FILE.json] [--out FOLDER]",
    .help = "figures of a run by gnuplot into RUN/plots: loss, accuracy, certified radii, time",
    .run = run,
};
