#include "app/certify_report.h"

#include "base/interval.h"
#include "base/log.h"

#include <math.h>
#include <stdio.h>

static const double CONFIDENCE = 0.95;

enum { CURVE_STEPS = 256 };

/* ---- figures ---- */

static long count_label(const bcop_network *n, int label) {
    long count = 0;
    for (long i = 0; i < bcop_dataset_count(n->dataset); i++)
        count += bcop_dataset_label(n->dataset, i) == label;
    return count;
}

static long count_right(const bcop_network *n, int label) {
    long count = 0;
    for (long i = 0; i < bcop_dataset_count(n->dataset); i++)
        count += bcop_dataset_label(n->dataset, i) == label && n->evaluator.margin[i] > 0;
    return count;
}

static double share(const bcop_network *n, double eps, bool float32) {
    return (double)bcop_certify_count(&n->certifier, eps, float32, -1) /
           (double)bcop_dataset_count(n->dataset);
}

/* The largest allowances over the images: for f, and for the float32 forward pass anywhere in the
   ball of the largest radius asked for. */
static void largest_rounding(const bcop_network *n, const bcop_reals *eps, double *f,
                             double *float32) {
    const bcop_verdict *v = n->certifier.verdict;
    double farthest = 0;
    *f = *float32 = 0;
    for (int i = 0; i < eps->count; i++)
        farthest = fmax(farthest, eps->value[i]);
    for (long i = 0; i < bcop_dataset_count(n->dataset); i++) {
        *f = fmax(*f, v[i].rounding);
        *float32 = fmax(*float32, v[i].float_rounding);
    }
    *float32 += sqrt(2) * n->certifier.certificate.float_slope * farthest;
}

/* ---- JSON ---- */

static json_t *interval_json(double accuracy, long trials) {
    double low, high;
    bcop_interval_share(lround(accuracy * (double)trials), trials, CONFIDENCE, &low, &high);
    return json_pack("[f, f]", low, high);
}

static json_t *classes_json(const bcop_network *n, const bcop_reals *eps) {
    json_t *classes = json_array();
    for (int c = 0; c < n->model->classes; c++) {
        json_t *certified = json_object();
        const long examples = count_label(n, c);
        const double of = examples > 0 ? (double)examples : 1;
        for (int i = 0; i < eps->count; i++)
            json_object_set_new(
                certified, eps->text[i],
                json_real((double)bcop_certify_count(&n->certifier, eps->value[i], false, c) / of));
        json_array_append_new(
            classes, json_pack("{s:i, s:I, s:f, s:o}", "class", c, "examples", (json_int_t)examples,
                               "clean", (double)count_right(n, c) / of, "certified", certified));
    }
    return classes;
}

void bcop_certify_report_json(const bcop_network *n, const bcop_reals *eps, double clean,
                              json_t *out) {
    const long trials = bcop_dataset_count(n->dataset);
    json_t *certified = json_object(), *float32 = json_object(), *intervals = json_object();
    for (int i = 0; i < eps->count; i++) {
        const double proven = share(n, eps->value[i], false);
        json_object_set_new(certified, eps->text[i], json_real(proven));
        json_object_set_new(float32, eps->text[i], json_real(share(n, eps->value[i], true)));
        json_object_set_new(intervals, eps->text[i], interval_json(proven, trials));
    }
    double rounding, rounding_float32;
    largest_rounding(n, eps, &rounding, &rounding_float32);
    json_object_set_new(out, "certified", certified);
    json_object_set_new(out, "lipschitz", json_real(n->certifier.certificate.lipschitz));
    json_object_set_new(out, "input_scale", json_real(bcop_model_input_scale(n->model)));
    json_object_set_new(out, "rounding", bcop_json_real(rounding));
    json_object_set_new(out, "certified_float32", float32);
    json_object_set_new(out, "rounding_float32", bcop_json_real(rounding_float32));
    json_object_set_new(out, "confidence", json_real(CONFIDENCE));
    json_object_set_new(out, "clean_interval", interval_json(clean, trials));
    json_object_set_new(out, "certified_interval", intervals);
    json_object_set_new(out, "classes", classes_json(n, eps));
}

/* ---- for people ---- */

static void print_row(const char *name, double accuracy, long trials, const char *more) {
    double low, high;
    bcop_interval_share(lround(accuracy * (double)trials), trials, CONFIDENCE, &low, &high);
    bcop_log_info("%-12s %7.2f%%   %6.2f .. %6.2f%s", name, 100 * accuracy, 100 * low, 100 * high,
                  more);
}

/* One line per class, as wide as there are radii. */
static void print_classes(const bcop_network *n, const bcop_reals *eps) {
    char line[1024];
    int at = snprintf(line, sizeof line, "class   images    clean");
    for (int i = 0; i < eps->count; i++)
        at += snprintf(line + at, sizeof line - (size_t)at, " %8.20s", eps->text[i]);
    bcop_log_info("%s", line);
    for (int c = 0; c < n->model->classes; c++) {
        const long images = count_label(n, c);
        const double percent = images > 0 ? 100 / (double)images : 0;
        at = snprintf(line, sizeof line, "%5d %8ld %8.2f", c, images,
                      percent * (double)count_right(n, c));
        for (int i = 0; i < eps->count; i++)
            at += snprintf(line + at, sizeof line - (size_t)at, " %8.2f",
                           percent *
                               (double)bcop_certify_count(&n->certifier, eps->value[i], false, c));
        bcop_log_info("%s", line);
    }
}

void bcop_certify_report_text(const bcop_network *n, const bcop_reals *eps, double clean) {
    const long trials = bcop_dataset_count(n->dataset);
    double rounding, rounding_float32;
    largest_rounding(n, eps, &rounding, &rounding_float32);
    bcop_log_info("proven Lipschitz bound %.9f (input scale %.9g)",
                  bcop_rounding_up(n->certifier.certificate.lipschitz, 9),
                  bcop_model_input_scale(n->model));
    bcop_log_info(
        "allowed for rounding: about %.1e of a margin; for the float32 forward pass about %.1e",
        rounding, rounding_float32);
    bcop_log_info("L2 radius   certified   95%% interval      float32 forward pass");
    print_row("(clean)", clean, trials, "");
    for (int i = 0; i < eps->count; i++) {
        char more[32];
        snprintf(more, sizeof more, "   %7.2f%%", 100 * share(n, eps->value[i], true));
        print_row(eps->text[i], share(n, eps->value[i], false), trials, more);
    }
    print_classes(n, eps);
}

/* ---- files ---- */

static bcop_status create(const char *path, FILE **out) {
    *out = fopen(path, "w");
    if (*out)
        return BCOP_OK;
    const bcop_status status = bcop_status_errno(BCOP_CANNOT_CREATE, "%s", path);
    return status == BCOP_NO_INPUT ? BCOP_CANNOT_CREATE : status; /* a folder is missing */
}

static bcop_status finish(FILE *out, const char *path) {
    const bool failed = ferror(out);
    if (fclose(out) != 0 || failed)
        return bcop_status_errno(BCOP_IO, "%s", path);
    return BCOP_OK;
}

bcop_status bcop_certify_report_images(const bcop_network *n, const char *path) {
    FILE *out;
    BCOP_TRY(create(path, &out));
    fputs("index,label,correct,margin,radius,radius_float32,rounding\n", out);
    for (long i = 0; i < bcop_dataset_count(n->dataset); i++) {
        const bcop_verdict *v = &n->certifier.verdict[i];
        fprintf(out, "%ld,%d,%d,%.17g,%.17g,%.17g,%.17g\n", i, bcop_dataset_label(n->dataset, i),
                n->evaluator.margin[i] > 0, v->margin, v->radius, v->float_radius, v->rounding);
    }
    return finish(out, path);
}

bcop_status bcop_certify_report_curve(const bcop_network *n, const char *path) {
    const long count = bcop_dataset_count(n->dataset);
    double farthest = 0;
    for (long i = 0; i < count; i++)
        if (isfinite(n->certifier.verdict[i].radius))
            farthest = fmax(farthest, n->certifier.verdict[i].radius);
    FILE *out;
    BCOP_TRY(create(path, &out));
    fputs("eps,certified,low,high,certified_float32\n", out);
    for (int i = 0; i <= CURVE_STEPS; i++) {
        const double eps = farthest * i / CURVE_STEPS, proven = share(n, eps, false);
        double low, high;
        bcop_interval_share(lround(proven * (double)count), count, CONFIDENCE, &low, &high);
        fprintf(out, "%.17g,%.17g,%.17g,%.17g,%.17g\n", eps, proven, low, high,
                share(n, eps, true));
    }
    return finish(out, path);
}
