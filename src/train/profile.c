#include "train/profile.h"

#include "base/log.h"
#include "base/spans.h"
#include "nn/direct.h"
#include "train/worker.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAMES_MAX = 512 };

typedef enum work { FORWARD, SLOPE, BACKWARD, BUILD, PULL, FORM, UPDATE, WORKS } work;
static const char *const work_name[WORKS] = {"forward", "slope", "backward", "build",
                                             "pull",    "form",  "update"};

/* A layer or a block: seconds and flops of all steps. */
typedef struct row {
    char name[40];
    double seconds[WORKS], flops[WORKS];
} row;

/* One rank's spans, and what they add up to. */
typedef struct account {
    int rank;
    long count;
    bcop_span *span;   /* [BCOP_SPANS_KEPT] */
    double begin, end; /* of the whole steps among them */
    int steps;
    double phase[BCOP_PHASES], step, mpi, bytes; /* per step */
    int rows;
    row row[NAMES_MAX];
} account;

/* ---- adding up ---- */

static bool is(const bcop_span *s, const char *category, const char *name) {
    return strcmp(s->category, category) == 0 && strcmp(s->name, name) == 0;
}

/* Whole steps: from the first kept compute phase to the last build. Spans are kept as they end, so
   of that phase's parts none is lost unless it was the oldest span. */
static void find_steps(account *a) {
    for (long i = 0; i < a->count; i++) {
        const bcop_span *s = &a->span[i];
        if (a->begin == 0 && s->begin >= a->span[0].begin &&
            is(s, "phase", bcop_worker_phase(BCOP_PHASE_COMPUTE)))
            a->begin = s->begin;
        if (a->begin > 0 && is(s, "phase", bcop_worker_phase(BCOP_PHASE_BUILD))) {
            a->end = s->end;
            a->steps++;
        }
    }
}

static row *row_of(account *a, const char *name) {
    for (int i = 0; i < a->rows; i++)
        if (strcmp(a->row[i].name, name) == 0)
            return &a->row[i];
    if (a->rows == NAMES_MAX)
        return NULL;
    snprintf(a->row[a->rows].name, sizeof a->row->name, "%s", name);
    return &a->row[a->rows++];
}

static void add_span(account *a, const bcop_span *s) {
    const double seconds = s->end - s->begin;
    for (int p = 0; p < BCOP_PHASES; p++)
        if (is(s, "phase", bcop_worker_phase((bcop_phase)p))) {
            a->phase[p] += seconds / a->steps;
            a->step += seconds / a->steps;
        }
    if (strcmp(s->category, "mpi") == 0) {
        a->mpi += seconds / a->steps;
        a->bytes += s->amount / a->steps;
    }
    for (int w = 0; w < WORKS; w++)
        if (strcmp(s->category, work_name[w]) == 0) {
            row *r = row_of(a, s->name);
            if (!r)
                return;
            r->seconds[w] += seconds / a->steps;
            r->flops[w] += s->amount / a->steps;
        }
}

static void add_up(account *a) {
    find_steps(a);
    for (long i = 0; i < a->count; i++)
        if (a->span[i].begin >= a->begin && a->span[i].end <= a->end)
            add_span(a, &a->span[i]);
}

/* ---- saying it ---- */

/* GFLOP/s of fused multiply-adds on one core: the best of a few tries. */
static double measure_peak(void) {
    double best = 0;
    float sum = 0;
    for (int i = 0; i < 8; i++) {
        const double start = bcop_clock_seconds();
        float sink = 0; /* the factor: sums neither grow nor vanish */
        const double flops = bcop_direct_peak(200000, &sink);
        best = fmax(best, flops / (bcop_clock_seconds() - start));
        sum += sink;
    }
    return isfinite(sum) ? 1e-9 * best : 0; /* so that the work is not optimised away */
}

static void print_rank(const account *a) {
    char line[256];
    int used = snprintf(line, sizeof line, "%5d %9.3f", a->rank, 1e3 * a->step);
    for (int p = 0; p < BCOP_PHASES; p++)
        used += snprintf(line + used, sizeof line - (size_t)used, " %9.3f", 1e3 * a->phase[p]);
    bcop_log_info("%s %9.3f %9.3f", line, 1e3 * a->mpi, 1e-6 * a->bytes);
}

static void print_rows(const account *a, double peak) {
    double products = 0, flops = 0;
    bcop_log_info("rank %d, ms a step and GFLOP/s; one core's peak: %.1f GFLOP/s", a->rank, peak);
    bcop_log_info("%-20s %-9s %9s %8s %7s", "layer or block", "work", "ms", "GFLOP/s", "of peak");
    for (int i = 0; i < a->rows; i++)
        for (int w = 0; w < WORKS; w++) {
            const row *r = &a->row[i];
            const double rate = 1e-9 * r->flops[w] / r->seconds[w];
            if (r->seconds[w] == 0)
                continue;
            if (r->flops[w] > 0) {
                products += r->seconds[w];
                flops += r->flops[w];
                bcop_log_info("%-20s %-9s %9.3f %8.1f %6.1f%%", r->name, work_name[w],
                              1e3 * r->seconds[w], rate, 100 * rate / peak);
            } else {
                bcop_log_info("%-20s %-9s %9.3f", r->name, work_name[w], 1e3 * r->seconds[w]);
            }
        }
    bcop_log_info("with products: %.1f%% of the step, %.1f GFLOP/s", 100 * products / a->step,
                  1e-9 * flops / products);
}

static void write_spans(FILE *f, const account *a, bool *first) {
    for (long i = 0; i < a->count; i++) {
        const bcop_span *s = &a->span[i];
        if (s->begin < a->begin || s->end > a->end)
            continue;
        fprintf(f,
                "%s\n{\"name\":\"%s\",\"cat\":\"%s\",\"ph\":\"X\",\"pid\":%d,\"tid\":0,"
                "\"ts\":%.3f,\"dur\":%.3f,\"args\":{\"%s\":%.0f}}",
                *first ? "" : ",", s->name, s->category, a->rank, 1e6 * (s->begin - a->begin),
                1e6 * (s->end - s->begin), strcmp(s->category, "mpi") ? "flops" : "bytes",
                s->amount);
        *first = false;
    }
}

/* What is printed of one rank, as one object. */
static void write_account(FILE *f, const account *a) {
    fprintf(f, "%s\n{\"rank\":%d,\"steps\":%d,\"step_seconds\":%.9g,\"phases\":{",
            a->rank ? "," : "", a->rank, a->steps, a->step);
    for (int p = 0; p < BCOP_PHASES; p++)
        fprintf(f, "%s\"%s\":%.9g", p ? "," : "", bcop_worker_phase((bcop_phase)p), a->phase[p]);
    fprintf(f, "},\"mpi_seconds\":%.9g,\"sent_bytes\":%.0f,\"work\":[", a->mpi, a->bytes);
    bool first = true;
    for (int i = 0; i < a->rows; i++)
        for (int w = 0; w < WORKS; w++)
            if (a->row[i].seconds[w] > 0) {
                fprintf(f, "%s{\"name\":\"%s\",\"work\":\"%s\",\"seconds\":%.9g,\"flops\":%.0f}",
                        first ? "" : ",", a->row[i].name, work_name[w], a->row[i].seconds[w],
                        a->row[i].flops[w]);
                first = false;
            }
    fputs("]}", f);
}

/* ---- gathering ---- */

/* Every rank's account in turn, on rank 0: two files' worth of text are written as they come. */
static void report(const bcop_comm *comm, account *mine, account *other, FILE *f, FILE *summary) {
    account *slowest = calloc(1, sizeof *slowest);
    bool first = true;
    for (int r = 0; r < comm->size; r++) {
        account *a = r == comm->rank ? mine : other;
        bcop_comm_broadcast(comm, &a->count, sizeof a->count, r);
        bcop_comm_broadcast(comm, a->span, a->count * (long)sizeof *a->span, r);
        if (comm->rank != 0)
            continue;
        *a = (account){.rank = r, .count = a->count, .span = a->span};
        add_up(a);
        if (r == 0) {
            bcop_log_info("profile of the last %d steps, ms a step", a->steps);
            bcop_log_info("%5s %9s %9s %9s %9s %9s %9s %9s %9s", "rank", "step", "compute", "agree",
                          "exchange", "update", "build", "in MPI", "MB sent");
        }
        if (a->steps > 0)
            print_rank(a);
        write_spans(f, a, &first);
        write_account(summary, a);
        if (slowest && a->step > slowest->step)
            *slowest = *a;
    }
    if (slowest && slowest->steps > 0)
        print_rows(slowest, measure_peak());
    free(slowest);
}

/* Appends the summary to the trace. */
static bcop_status join(FILE *f, FILE *summary, const char *file) {
    char piece[4096];
    size_t n;
    fputs("\n],\"bcop\":[", f);
    rewind(summary);
    while ((n = fread(piece, 1, sizeof piece, summary)) > 0)
        fwrite(piece, 1, n, f);
    fputs("\n]}\n", f);
    return fflush(f) != 0 || ferror(f) || ferror(summary) ? bcop_status_errno(BCOP_IO, "%s", file)
                                                          : BCOP_OK;
}

static bcop_status try_file(const char *file) {
    FILE *f = fopen(file, "a"); /* what is there stays until there is a profile */
    if (!f)
        return bcop_status_create(file);
    fclose(f);
    return BCOP_OK;
}

bcop_status bcop_profile_open(const bcop_comm *comm, const char *file) {
    bcop_status status = comm->rank == 0 ? try_file(file) : BCOP_OK;
    if (status == BCOP_OK)
        status = bcop_spans_open();
    return bcop_comm_agree(comm, status);
}

static bcop_status gather(const bcop_comm *comm, const char *file, account *mine, account *other) {
    FILE *f = NULL, *summary = NULL;
    bcop_status status = BCOP_OK;
    if (comm->rank == 0) {
        f = fopen(file, "w");
        summary = tmpfile();
        if (!f || !summary)
            status = bcop_status_errno(BCOP_IO, "%s", file);
    }
    status = bcop_comm_agree(comm, status);
    if (status == BCOP_OK) {
        if (f)
            fputs("{\"displayTimeUnit\":\"ms\",\"traceEvents\":[", f);
        report(comm, mine, other, f, summary);
        status = f ? join(f, summary, file) : BCOP_OK;
    }
    if (f)
        fclose(f);
    if (summary)
        fclose(summary);
    return bcop_comm_agree(comm, status);
}

bcop_status bcop_profile_close(const bcop_comm *comm, const char *file, bcop_status training) {
    char message[1024];
    snprintf(message, sizeof message, "%s", training == BCOP_OK ? "" : bcop_status_message());
    account *both = calloc(2, sizeof *both);
    bcop_span *span = calloc(2 * (size_t)BCOP_SPANS_KEPT, sizeof *span);
    bcop_status status =
        both && span ? BCOP_OK : bcop_status_fail(BCOP_INTERNAL, "out of memory for %s", file);
    status = bcop_comm_agree(comm, status);
    if (status == BCOP_OK) {
        both[0].span = span;
        both[1].span = span + BCOP_SPANS_KEPT;
        const bcop_span *kept = bcop_spans_stop(&both[0].count);
        memcpy(span, kept, (size_t)both[0].count * sizeof *span);
        status = gather(comm, file, &both[0], &both[1]);
    }
    bcop_spans_close();
    free(both);
    free(span);
    if (training != BCOP_OK)
        return bcop_status_fail(training, "%s", message);
    return status;
}
