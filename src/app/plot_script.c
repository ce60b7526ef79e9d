#include "app/plot_script.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

enum { POINTS = 400 }; /* at most, of a figure over steps */

/* gnuplot's single quotes: nothing is special in them but the quote itself. */
static void quote(FILE *out, const char *text) {
    fputc('\'', out);
    for (; *text; text++) {
        if (*text == '\'')
            fputc('\'', out);
        fputc((unsigned char)*text < ' ' || *text == 127 ? '?' : *text, out);
    }
    fputc('\'', out);
}

static double at(const bcop_history *h, long step) {
    return h->steps_per_epoch > 0 ? (double)step / (double)h->steps_per_epoch : (double)step;
}

/* ---- data blocks ---- */

typedef double reader(const bcop_history *h, const bcop_history_step *step);

static double read_loss(const bcop_history *h, const bcop_history_step *step) {
    (void)h;
    return step->loss;
}

static double read_seconds(const bcop_history *h, const bcop_history_step *step) {
    return h->batch / step->images_per_second;
}

/* Means over at most POINTS equal pieces of the run. */
static void write_steps(FILE *out, const char *block, const bcop_history *h, reader *read) {
    const long piece = (h->steps + POINTS - 1) / POINTS;
    fprintf(out, "$%s << END\n", block);
    for (long i = 0; i < h->steps; i += piece) {
        double sum = 0;
        long count = 0;
        const long end = i + piece < h->steps ? i + piece : h->steps;
        for (long k = i; k < end; k++) {
            const double value = read(h, &h->step[k]);
            sum += isfinite(value) ? value : 0;
            count += isfinite(value);
        }
        if (count > 0)
            fprintf(out, "%.9g %.9g\n", at(h, h->step[end - 1].step), sum / (double)count);
    }
    fputs("END\n", out);
}

/* Columns: epoch, loss, clean, then certified at each radius of `eps`. */
static void write_evaluations(FILE *out, const char *split, const bcop_history *h,
                              const bcop_reals *eps) {
    fprintf(out, "$%s << END\n", split);
    for (long i = 0; i < h->evaluations; i++) {
        const bcop_history_evaluation *e = &h->evaluation[i];
        if (strcmp(e->split, split) != 0)
            continue;
        fprintf(out, "%.9g %.9g %.9g", at(h, e->step), e->loss, 100 * e->clean);
        for (int k = 0; k < eps->count; k++) {
            int j = 0;
            while (j < e->eps.count && strcmp(e->eps.text[j], eps->text[k]) != 0)
                j++;
            fprintf(out, " %.9g", j < e->eps.count ? 100 * e->certified[j] : (double)NAN);
        }
        fputc('\n', out);
    }
    fputs("END\n", out);
}

/* ---- figures ---- */

/* Opens a figure: what follows in *body (one `plot` command) is written for both terminals. */
static void figure(FILE *out, const char *name, const char *title, const char *x, const char *y,
                   const char *body) {
    static const char *const terminals[][2] = {
        {"svg", "svg noenhanced size 800,500 background 'white'"},
        {"png", "pngcairo noenhanced size 1200,750"}};
    for (int i = 0; i < 2; i++) {
        fprintf(out, "reset\nset terminal %s\nset output '%s.%s'\nset title ", terminals[i][1],
                name, terminals[i][0]);
        quote(out, title);
        fprintf(out,
                "\nset xlabel '%s'\nset ylabel '%s'\nset grid\nset key outside right top\n%s\n"
                "unset output\n",
                x, y, body);
    }
}

static void figure_loss(FILE *out, const bcop_history *h, const char *x) {
    char body[512];
    snprintf(body, sizeof body,
             "set yrange [0:*]\nplot $losses using 1:2 with lines lc 'gray50' title 'training'%s%s",
             bcop_history_evaluated(h, "holdout")
                 ? ", $holdout using 1:2 with linespoints lc 1 pt 7 ps 0.5 title 'hold-out'"
                 : "",
             bcop_history_evaluated(h, "test")
                 ? ", $test using 1:2 with linespoints lc 2 pt 5 title 'test'"
                 : "");
    figure(out, "loss", h->name, x, "loss", body);
}

static void add(char body[static 4096], const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Appends to a plot command; what does not fit is left out as a whole. */
static void add(char body[static 4096], const char *format, ...) {
    const size_t used = strlen(body);
    va_list args;
    va_start(args, format);
    if (vsnprintf(body + used, 4096 - used, format, args) >= (int)(4096 - used))
        body[used] = 0;
    va_end(args);
}

static void figure_accuracy(FILE *out, const bcop_history *h, const char *x,
                            const bcop_reals *eps) {
    static const char *const splits[] = {"holdout", "test"};
    char body[4096] = "set yrange [0:100]\nplot NaN notitle";
    for (int k = 0; k < 2; k++) {
        if (!bcop_history_evaluated(h, splits[k]))
            continue;
        const char *style = k == 0 ? "linespoints pt 7 ps 0.5" : "linespoints pt 5 ps 1.2";
        add(body, ", $%s using 1:3 with %s lc 1 title '%s, clean'", splits[k], style, splits[k]);
        for (int i = 0; i < eps->count; i++)
            add(body, ", $%s using 1:%d with %s lc %d title '%s, certified at %s'", splits[k],
                4 + i, style, 2 + i, splits[k], eps->text[i]);
    }
    figure(out, "accuracy", h->name, x, "accuracy (%)", body);
}

static void figure_radius(FILE *out, const bcop_history *h, const bcop_plot_curve *curve,
                          const bcop_history_evaluation *last) {
    char body[256] = "set yrange [0:100]\nset xrange [0:*]\nplot $curve using 1:2 with ";
    fputs("$curve << END\n", out);
    for (long i = 0; i < curve->count; i++)
        fprintf(out, "%.9g %.9g\n", curve->eps[i], 100 * curve->certified[i]);
    if (curve->count == 0) {
        fprintf(out, "0 %.9g\n", 100 * last->clean);
        for (int i = 0; i < last->eps.count; i++)
            fprintf(out, "%.9g %.9g\n", last->eps.value[i], 100 * last->certified[i]);
    }
    fputs("END\n", out);
    if (curve->count > 0)
        strcat(body, "steps lw 2 notitle");
    else
        snprintf(body + strlen(body), sizeof body - strlen(body),
                 "linespoints pt 7 title '%s, step %ld; more radii: --curve'", last->split,
                 last->step);
    figure(out, "radius", h->name, "L2 radius (pixels in [0, 1])", "certified accuracy (%)", body);
}

static void figure_time(FILE *out, const bcop_history *h, const char *x,
                        const bcop_plot_times *times) {
    if (times->count == 0) {
        write_steps(out, "times", h, read_seconds);
        figure(out, "time", h->name, x, "seconds per step",
               "set yrange [0:*]\nplot $times using 1:2 with lines notitle");
        return;
    }
    fputs("$times << END\n", out);
    for (int i = 0; i < times->count; i++) {
        fprintf(out, "%d %.9g ", i, times->seconds[i]);
        fputc('"', out);
        for (const char *c = times->name[i]; *c; c++)
            fputc((unsigned char)*c < ' ' || *c == '"' || *c == '\\' ? '?' : *c, out);
        fputs("\"\n", out);
    }
    fputs("END\n", out);
    figure(out, "time", h->name, "", "seconds",
           "set yrange [0:*]\nset style fill solid 0.6\nset boxwidth 0.7\n"
           "set xtics rotate by -30\nplot $times using 1:2:xtic(3) with boxes notitle");
}

void bcop_plot_script_write(FILE *out, const bcop_history *h, const bcop_plot_curve *curve,
                            const bcop_plot_times *times) {
    static const bcop_reals none = {0};
    const char *x = h->steps_per_epoch > 0 ? "epoch" : "step";
    const bcop_history_evaluation *last = bcop_history_evaluated(h, "test");
    if (!last)
        last = bcop_history_evaluated(h, "holdout");
    const bcop_reals *eps = last ? &last->eps : &none;
    write_evaluations(out, "holdout", h, eps);
    write_evaluations(out, "test", h, eps);
    if (h->steps > 0) {
        write_steps(out, "losses", h, read_loss);
        figure_loss(out, h, x);
    }
    if (last)
        figure_accuracy(out, h, x, eps);
    if (last || curve->count > 0)
        figure_radius(out, h, curve, last);
    if (h->steps > 0 || times->count > 0)
        figure_time(out, h, x, times);
}
