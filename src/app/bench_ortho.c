#include "app/bench_ortho.h"

#include "app/bench_paper.h"
#include "app/bench_stage.h"
#include "base/log.h"
#include "base/rng.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- what is compared ---- */

typedef struct variant {
    const char *name;
    bcop_placement placement;
    bool alone;
} variant;

/* Every other variant is compared with the first: one rank, with no other at work. */
static const variant variants[] = {
    {"alone", BCOP_PLACEMENT_REPLICATED, true}, {"replicated", BCOP_PLACEMENT_REPLICATED, false},
    {"owned", BCOP_PLACEMENT_OWNED, false},     {"shared", BCOP_PLACEMENT_SHARED, false},
    {"grid", BCOP_PLACEMENT_GRID, false},
};

enum {
    GRID = 4, /* its place above */
    VARIANTS = sizeof variants / sizeof *variants,
    SHAPES_MAX = 32,
    CUBIC_ITERATIONS = 2, /* what order 1 would take after bcop_bench_stage_step */
    PAPER_ITERATIONS = 20 /* what the paper takes */
};

typedef struct contest {
    const bcop_comm *comm;
    bcop_bench_shape shape;
    bcop_bench_stage entrant[VARIANTS];
    bool applies[VARIANTS];
    bcop_bench_paper step, paper; /* rank 0 */
    bool has_step, has_paper;
    float *gradient;
    float *perturbed, *work; /* to be retracted: a block as adam leaves it, and room for it */
    bcop_arena arena;
    double seconds[VARIANTS], step_seconds, paper_seconds; /* 0: not measured */
    double retraction_seconds[2];                          /* one rank alone, and on the grid */
    double iterations;                                     /* Bjorck's, mean per update */
    double without; /* the largest part of a variant's time in which a rank had no core */
} contest;

/* The paper's procedure where it takes less than about ten seconds. */
static bool paper_is_short(bcop_bench_shape s) {
    const double flops = 3.0 * PAPER_ITERATIONS * 4 * s.rows * s.cols * s.cols;
    return flops < 10 * 60e9;
}

static bcop_status open_contest(contest *c, const bcop_comm *comm, bcop_bench_shape shape) {
    *c = (contest){.comm = comm,
                   .shape = shape,
                   .has_step = shape.blocks == 1,
                   .has_paper = shape.blocks == 1 && paper_is_short(shape),
                   .arena = {.name = "the benchmark"}};
    for (int v = 0; v < VARIANTS; v++) {
        BCOP_TRY(bcop_bench_stage_open(&c->entrant[v], comm, variants[v].placement,
                                       variants[v].alone, shape));
        c->applies[v] = bcop_bench_stage_applies(&c->entrant[v]);
    }
    return BCOP_OK;
}

static void close_contest(contest *c) {
    for (int v = 0; v < VARIANTS; v++)
        bcop_bench_stage_close(&c->entrant[v]);
    bcop_arena_free(&c->arena);
}

/* Whether the retraction is also measured by itself: where a grid may pay. */
static bool has_retraction(const contest *c) {
    return c->has_step && c->applies[GRID] && c->shape.rows >= 1024;
}

static void plan_contest(contest *c) {
    const bcop_bench_shape s = c->shape;
    for (int v = 0; v < VARIANTS; v++)
        if (c->applies[v])
            bcop_bench_stage_plan(&c->entrant[v], &c->arena);
    c->gradient = bcop_arena_floats(&c->arena, (long)s.rows * s.cols);
    if (has_retraction(c)) {
        c->perturbed = bcop_arena_floats(&c->arena, (long)s.rows * s.cols);
        c->work = bcop_arena_floats(&c->arena, (long)s.rows * s.cols);
    }
    if (c->has_step && c->comm->rank == 0)
        bcop_bench_paper_plan(&c->step, s.rows, s.cols, 1, &c->arena);
    if (c->has_paper && c->comm->rank == 0)
        bcop_bench_paper_plan(&c->paper, s.rows, s.cols, PAPER_ITERATIONS, &c->arena);
}

static bcop_status fill_contest(contest *c) {
    const long size = (long)c->shape.rows * c->shape.cols;
    bcop_rng rng = bcop_rng_open(2, BCOP_RNG_INIT, 0, bcop_rng_name("gradient"));
    for (long i = 0; i < size; i++)
        c->gradient[i] = (float)(0.01 * bcop_rng_normal(&rng));
    for (int v = 0; v < VARIANTS; v++)
        if (c->applies[v])
            BCOP_TRY(bcop_bench_stage_fill(&c->entrant[v], v ? &c->entrant[0] : NULL, c->gradient));
    const float *block = c->entrant[0].parameter[0].value;
    for (long i = 0; c->perturbed && i < size; i++)
        c->perturbed[i] =
            block[i] + (float)(bcop_bench_stage_step(c->shape.cols) * bcop_rng_normal(&rng));
    if (c->step.iterate)
        memcpy(c->step.iterate, block, (size_t)size * sizeof *block);
    if (c->paper.iterate)
        memcpy(c->paper.iterate, block, (size_t)size * sizeof *block);
    return BCOP_OK;
}

/* ---- measuring ---- */

static bcop_status run_forward(void *of) {
    bcop_bench_paper_forward(of);
    return BCOP_OK;
}

static bcop_status run_both(void *of) {
    bcop_bench_paper_forward(of);
    bcop_bench_paper_backward(of);
    return BCOP_OK;
}

static bcop_status measure_retraction(contest *c) {
    bcop_bench_item item[2] = {
        bcop_bench_stage_retraction(&c->entrant[0], c->perturbed, c->work),
        bcop_bench_stage_retraction(&c->entrant[GRID], c->perturbed, c->work)};
    BCOP_TRY(bcop_bench_timing_run(c->comm, (bcop_bench_rounds){5, 0.5, 30, true}, 2, item));
    for (int i = 0; i < 2; i++)
        c->retraction_seconds[i] = item[i].seconds;
    return BCOP_OK;
}

static bcop_status measure_contest(contest *c) {
    bcop_bench_item item[VARIANTS + 1];
    int of[VARIANTS], count = 0;
    for (int v = 0; v < VARIANTS; v++)
        if (c->applies[v]) {
            of[count] = v;
            item[count++] = bcop_bench_stage_item(&c->entrant[v]);
        }
    if (c->has_step)
        item[count] = (bcop_bench_item){.run = run_forward, .of = &c->step, .alone = true};
    BCOP_TRY(bcop_bench_timing_run(c->comm, (bcop_bench_rounds){5, 0.5, 30, true},
                                   count + c->has_step, item));
    for (int i = 0; i < count; i++) {
        c->seconds[of[i]] = item[i].seconds;
        c->without = fmax(c->without, item[i].without);
    }
    c->step_seconds = c->has_step ? item[count].seconds : 0;
    if (c->entrant[0].steps > 0)
        c->iterations = c->entrant[0].iterations / (double)c->entrant[0].steps;
    if (has_retraction(c))
        BCOP_TRY(measure_retraction(c));
    if (!c->has_paper)
        return BCOP_OK;
    bcop_bench_item paper = {.run = run_both, .of = &c->paper, .alone = true};
    if (c->paper.slope[0])
        memcpy(c->paper.slope[0], c->gradient,
               (size_t)c->shape.rows * (size_t)c->shape.cols * sizeof *c->gradient);
    BCOP_TRY(bcop_bench_timing_run(c->comm, (bcop_bench_rounds){3, 0, 2, false}, 1, &paper));
    c->paper_seconds = paper.seconds;
    return BCOP_OK;
}

/* An update whose tangent projection and iterations, of order 1, are each a product with W^T and
   one by W: no symmetry used, the optimizer not counted. */
static double by_gemm(const contest *c) {
    return (1 + CUBIC_ITERATIONS) * c->step_seconds;
}

static double gflops(const contest *c) {
    return 1e-9 * c->shape.blocks * bcop_placement_cost(c->shape.rows, c->shape.cols) /
           c->seconds[0];
}

/* ---- saying it ---- */

static json_t *milliseconds(double seconds) {
    return seconds > 0 ? json_real(1e3 * seconds) : json_null();
}

static void append_json(const contest *c, json_t *rows) {
    json_t *ms = json_object(), *ratio = json_object();
    for (int v = 0; v < VARIANTS; v++) {
        json_object_set_new(ms, variants[v].name, milliseconds(c->seconds[v]));
        if (v > 0)
            json_object_set_new(ratio, variants[v].name,
                                c->seconds[v] > 0 ? json_real(c->seconds[0] / c->seconds[v])
                                                  : json_null());
    }
    json_array_append_new(
        rows,
        json_pack("{s:i, s:i, s:i, s:f, s:f, s:f, s:o, s:o, s:o, s:o, s:o, s:[o, o]}", "rows",
                  c->shape.rows, "cols", c->shape.cols, "blocks", c->shape.blocks, "iterations",
                  c->iterations, "gflops", gflops(c), "without_core", c->without, "ms", ms,
                  "speedup", ratio, "gemm_step_ms", milliseconds(c->step_seconds), "gemm_update_ms",
                  milliseconds(by_gemm(c)), "paper_ms", milliseconds(c->paper_seconds),
                  "retraction_ms", milliseconds(c->retraction_seconds[0]),
                  milliseconds(c->retraction_seconds[1])));
}

enum { LINE = 256, CELL = 18 };

/* Text that stands at the right end of a column. */
static void append(char line[static LINE], int width, const char *text) {
    const size_t used = strlen(line);
    snprintf(line + used, LINE - used, "%*s", width, text);
}

static void append_ms(char line[static LINE], int width, double seconds, double ratio) {
    char text[32] = "-";
    if (seconds > 0 && ratio > 0)
        snprintf(text, sizeof text, "%.2f (%.2f)", 1e3 * seconds, ratio);
    else if (seconds > 0)
        snprintf(text, sizeof text, "%.2f", 1e3 * seconds);
    append(line, width, text);
}

static void print_head(bool single) {
    char line[LINE] = "";
    append(line, 10, "block");
    append(line, 12, "iterations");
    for (int v = 0; v < VARIANTS; v++)
        append(line, v ? CELL : 10, variants[v].name);
    append(line, 10, "GFLOP/s");
    if (single) {
        append(line, 12, "GEMM step");
        append(line, 13, "GEMM update");
        append(line, 10, "paper");
    }
    bcop_log_info("%s", line);
}

static void print_row(const contest *c) {
    char line[LINE] = "", text[32];
    snprintf(text, sizeof text, "%dx%d", c->shape.rows, c->shape.cols);
    append(line, 10, text);
    snprintf(text, sizeof text, "%.2f", c->iterations);
    append(line, 12, text);
    for (int v = 0; v < VARIANTS; v++)
        append_ms(line, v ? CELL : 10, c->seconds[v], v ? c->seconds[0] / c->seconds[v] : 0);
    snprintf(text, sizeof text, "%.1f", gflops(c));
    append(line, 10, text);
    if (c->has_step) {
        append_ms(line, 12, c->step_seconds, 0);
        append_ms(line, 13, by_gemm(c), 0);
        append_ms(line, 10, c->paper_seconds, 0);
    }
    if (c->without > 0.05) {
        snprintf(text, sizeof text, "  disturbed %.0f%%", 100 * c->without);
        append(line, 0, text);
    }
    bcop_log_info("%s", line);
    if (c->retraction_seconds[1] > 0) {
        const double *s = c->retraction_seconds, gemm = CUBIC_ITERATIONS * c->step_seconds;
        bcop_log_info("%10s retraction by itself: one rank %.2f, grid %.2f (%.2f; against GEMM + "
                      "GEMM %.2f)",
                      "", 1e3 * s[0], 1e3 * s[1], s[0] / s[1], gemm / s[1]);
    }
}

static void explain(int ranks) {
    bcop_log_info(
        "ortho: one update of the stage (tangent projection, adam, retraction, new blocks "
        "to every rank), medians");
    bcop_log_info("in ms, in turn, on %d rank%s; in brackets how many times faster than one rank "
                  "alone (the others idle).",
                  ranks, ranks > 1 ? "s" : "");
    bcop_log_info("-: the stage does not place such blocks so. GFLOP/s: by the stage's count of "
                  "operations, one rank alone.");
    bcop_log_info("For scale, on one rank: a Bjorck step of order 1 as GEMM + GEMM; an update's "
                  "products in that way, with %d",
                  CUBIC_ITERATIONS);
    bcop_log_info(
        "such steps; and the paper's procedure, %d such steps and their unrolled gradient. disturbed: so much of the "
        "time a rank had no",
        PAPER_ITERATIONS);
    bcop_log_info("core, because of others on the machine or more ranks than cores: do not trust "
                  "that row.");
}

/* ---- the tables ---- */

static bcop_status run_contest(contest *c) {
    plan_contest(c);
    BCOP_TRY(bcop_comm_agree(c->comm, bcop_arena_reserve(&c->arena)));
    plan_contest(c);
    BCOP_TRY(bcop_comm_agree(c->comm, fill_contest(c)));
    return measure_contest(c);
}

/* n x n, n x n/2, and n x 512 beyond, for n = 128, 256, ... max_size. Returns how many. */
static int single_shapes(int max_size, bcop_bench_shape shape[static SHAPES_MAX]) {
    int count = 0;
    for (int n = BCOP_BENCH_SIZE_MIN; n <= max_size; n *= 2) {
        shape[count++] = (bcop_bench_shape){n, n, 1};
        shape[count++] = (bcop_bench_shape){n, n / 2, 1};
        if (n > 1024)
            shape[count++] = (bcop_bench_shape){n, 512, 1};
    }
    return count;
}

/* Eight equal blocks, which can be dealt out whole; up to 1024, for time and memory. */
static int several_shapes(int max_size, bcop_bench_shape shape[static SHAPES_MAX]) {
    int count = 0;
    for (int n = BCOP_BENCH_SIZE_MIN; n <= max_size && n <= 1024; n *= 2)
        shape[count++] = (bcop_bench_shape){n, n, BCOP_BENCH_BLOCKS_MAX};
    return count;
}

/* Adds each row's rate to rate[]. */
static bcop_status run_table(const bcop_comm *comm, int count, const bcop_bench_shape shape[],
                             json_t *rows, double rate[]) {
    contest c;
    if (shape[0].blocks > 1)
        bcop_log_info("%d equal blocks:", shape[0].blocks);
    print_head(shape[0].blocks == 1);
    for (int i = 0; i < count; i++) {
        bcop_status status = open_contest(&c, comm, shape[i]);
        if (status == BCOP_OK)
            status = run_contest(&c);
        if (status == BCOP_OK && comm->rank == 0) {
            print_row(&c);
            append_json(&c, rows);
            rate[i] = gflops(&c);
        }
        close_contest(&c);
        BCOP_TRY(status);
    }
    return BCOP_OK;
}

bcop_status bcop_bench_ortho_run(bcop_bench_task *task) {
    bcop_bench_shape shape[SHAPES_MAX];
    double rate[SHAPES_MAX] = {0}, ignored[SHAPES_MAX];
    json_t *rows = task->json ? json_array() : NULL;
    explain(task->comm->size);
    const int count = single_shapes(task->max_size, shape);
    bcop_status status = run_table(task->comm, count, shape, rows, rate);
    task->machine.ortho_gflops = bcop_bench_timing_median(count, rate);
    if (status == BCOP_OK)
        status = run_table(task->comm, several_shapes(task->max_size, shape), shape, rows, ignored);
    if (rows)
        json_object_set_new(task->json, "ortho", rows);
    return status;
}
