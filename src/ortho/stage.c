#include "ortho/stage.h"

#include "base/rng.h"
#include "base/spans.h"
#include "linalg/product.h"
#include "linalg/qr.h"
#include "ortho/tangent.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static long larger(long a, long b) {
    return a > b ? a : b;
}

/* ---- groups and memory ---- */

_Static_assert(1 << (BCOP_STAGE_GROUPS - 1) == BCOP_ROWS_PANELS_MAX,
               "a group for every number of panels");

/* offset[ranks + 1]: where each rank's rows begin. */
static void fill_offsets(const bcop_stage *stage, const bcop_stage_entry *e, long *offset) {
    const bcop_parameter *p = e->parameter;
    const int ranks = stage->comm->size;
    if (e->placement == BCOP_PLACEMENT_GRID) {
        for (int r = 0; r <= ranks; r++)
            offset[r] = (long)bcop_grid_first_row(&stage->grid, p->rows, r) * p->cols;
        return;
    }
    const int panels = bcop_rows_panels(p->rows);
    const int members =
        e->placement == BCOP_PLACEMENT_SHARED ? bcop_placement_holders(ranks, p->rows) : 1;
    for (int r = 0; r <= ranks; r++) {
        const int member = r - e->first;
        const int run = member <= 0 ? 0 : member >= members ? panels : panels * member / members;
        offset[r] = (long)p->rows * run / panels * p->cols;
    }
}

/* What the optimizer's step of a block costs, from one with a single column and a row or none. */
static void take_step_cost(bcop_stage_rule *rule) {
    const bcop_rows one = {.group = &bcop_comm_alone, .rows = 1, .cols = 1, .count = 1};
    bcop_rows none = one;
    none.count = 0;
    if (!rule->optimizer->flops)
        return;
    rule->placement.step_small = rule->optimizer->flops(rule->optimizer_options, &none);
    rule->placement.step_wide =
        rule->optimizer->flops(rule->optimizer_options, &one) - rule->placement.step_small;
}

static bcop_status take_tables(bcop_stage *stage) {
    const int count = stage->count, ranks = stage->comm->size;
    stage->choice = calloc((size_t)count + 1, sizeof *stage->choice);
    stage->entry = calloc((size_t)count + 1, sizeof *stage->entry);
    stage->offsets = calloc((size_t)count * ((size_t)ranks + 1) + 1, sizeof *stage->offsets);
    if (!stage->choice || !stage->entry || !stage->offsets)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory for %d parameters", count);
    take_step_cost(&stage->rule);
    bcop_placement_choose(&stage->rule.placement, ranks, count, stage->parameter, stage->choice);
    return BCOP_OK;
}

bcop_status bcop_stage_open(bcop_stage *stage, const bcop_comm *comm, bcop_stage_rule rule,
                            int count, bcop_parameter *const parameter[]) {
    *stage = (bcop_stage){.rule = rule, .comm = comm, .count = count, .parameter = parameter};
    if (comm->size > BCOP_PLACEMENT_RANKS_MAX)
        return bcop_status_fail(BCOP_CONFIG, "%d ranks are more than %d", comm->size,
                                BCOP_PLACEMENT_RANKS_MAX);
    BCOP_TRY(bcop_comm_agree(comm, take_tables(stage)));
    bcop_comm_broadcast(comm, stage->choice, count * (long)sizeof *stage->choice, 0);
    bool needs_grid = false;
    for (int i = 0; i < count; i++)
        needs_grid |= stage->choice[i].placement == BCOP_PLACEMENT_GRID;
    if (needs_grid)
        BCOP_TRY(bcop_grid_open(&stage->grid, comm, rule.placement.grid_rows));
    for (int i = 0; i < count; i++) {
        bcop_stage_entry *e = &stage->entry[i];
        *e = (bcop_stage_entry){.parameter = parameter[i],
                                .placement = stage->choice[i].placement,
                                .owner = stage->choice[i].owner,
                                .first = stage->choice[i].first,
                                .root = stage->choice[i].root,
                                .in_parts =
                                    stage->choice[i].placement == BCOP_PLACEMENT_SHARED &&
                                    bcop_bjorck_is_tall(parameter[i]->rows, parameter[i]->cols),
                                .size = bcop_parameter_size(parameter[i])};
        if (e->placement == BCOP_PLACEMENT_REPLICATED)
            continue;
        e->offset = stage->offsets + i * (comm->size + 1L);
        fill_offsets(stage, e, e->offset);
        e->size = e->offset[comm->rank + 1] - e->offset[comm->rank];
    }
    for (int g = 1; g < BCOP_STAGE_GROUPS && 1 << g < comm->size; g++)
        BCOP_TRY(bcop_comm_split(comm, 1 << g, &stage->group[g]));
    return BCOP_OK;
}

void bcop_stage_close(bcop_stage *stage) {
    bcop_grid_close(&stage->grid);
    for (int g = 0; g < BCOP_STAGE_GROUPS; g++)
        bcop_comm_release(&stage->group[g]);
    free(stage->choice);
    free(stage->entry);
    free(stage->offsets);
    stage->choice = NULL;
    stage->entry = NULL;
    stage->offsets = NULL;
}

int bcop_stage_root(const bcop_stage *stage, int i) {
    const bcop_stage_entry *e = &stage->entry[i];
    return e->placement == BCOP_PLACEMENT_REPLICATED ? BCOP_LANE_EVERY : e->owner;
}

/* Where this rank's rows begin in the whole, in floats. */
static long held_at(const bcop_stage *stage, const bcop_stage_entry *e) {
    return e->offset ? e->offset[stage->comm->rank] : 0;
}

/* The ranks that hold a shared block, when this one is among them. */
static const bcop_comm *group_for(const bcop_stage *stage, const bcop_stage_entry *e) {
    if (e->placement != BCOP_PLACEMENT_SHARED)
        return &bcop_comm_alone;
    const int panels = bcop_rows_panels(e->parameter->rows);
    int g = 0;
    while (1 << g < panels)
        g++;
    return panels >= stage->comm->size ? stage->comm : &stage->group[g];
}

/* Whether this rank has a part in the update: on the grid every rank has, with rows or without. */
static bool takes_part(const bcop_stage_entry *e) {
    return e->size > 0 || e->placement == BCOP_PLACEMENT_GRID;
}

/* Whether this rank works on the small matrices of a block whose retraction is in parts. */
static bool works_at_root(const bcop_stage_entry *e) {
    return e->in_parts && e->size > 0 && e->rows.group->rank == e->root;
}

static void plan_entry(bcop_stage *stage, bcop_stage_entry *e, bcop_arena *arena) {
    bcop_parameter *p = e->parameter;
    const long whole = bcop_parameter_size(p);
    const int root = bcop_stage_root(stage, (int)(e - stage->entry));
    const bool forms = !p->factored && (root == BCOP_LANE_EVERY || root == stage->comm->rank);
    p->value = bcop_arena_floats(arena, whole);
    p->gradient = NULL;
    if (forms || e->size == whole) {
        p->gradient = bcop_arena_floats(arena, whole);
        e->gradient = p->gradient ? p->gradient + held_at(stage, e) : NULL;
    } else {
        e->gradient = bcop_arena_floats(arena, e->size);
    }
    if (e->placement == BCOP_PLACEMENT_GRID)
        bcop_rows_spread(&e->rows, &stage->grid, p->rows, p->cols, arena);
    else if (p->orthonormal && (e->size > 0 || !e->offset))
        bcop_rows_plan(&e->rows, group_for(stage, e), e->root, p->rows, p->cols, arena);
    e->slots = stage->rule.optimizer->slots(p->orthonormal, e->slot);
    const size_t before = arena->used;
    for (int s = 0; s < e->slots; s++)
        e->state[s] = bcop_arena_floats(arena, e->slot[s].single && takes_part(e) ? 1 : e->size);
    stage->state_bytes += arena->used - before;
    e->small = NULL;
    if (works_at_root(e))
        e->small = bcop_arena_floats(arena, bcop_bjorck_small(&e->rows));
}

static long scratch_for(const bcop_stage *stage, const bcop_stage_entry *e) {
    if (!e->parameter->orthonormal || !takes_part(e))
        return 0;
    const long optimizer =
        stage->rule.optimizer->scratch ? stage->rule.optimizer->scratch(&e->rows) : 0;
    return larger(optimizer, larger(bcop_tangent_scratch(&e->rows), bcop_bjorck_scratch(&e->rows)));
}

void bcop_stage_plan(bcop_stage *stage, bcop_arena *arena) {
    long scratch = 0, sums = 0;
    stage->state_bytes = 0;
    for (int i = 0; i < stage->count; i++) {
        bcop_stage_entry *e = &stage->entry[i];
        plan_entry(stage, e, arena);
        scratch = larger(scratch, scratch_for(stage, e));
        sums = larger(sums, e->rows.count > 0 ? bcop_rows_buffer(&e->rows) : 0);
    }
    bcop_arena_turn(arena);
    stage->scratch = bcop_arena_borrow_floats(arena, scratch);
    float *buffer = bcop_arena_borrow_floats(arena, sums);
    for (int i = 0; buffer && i < stage->count; i++)
        if (stage->entry[i].rows.count > 0)
            bcop_rows_attach(&stage->entry[i].rows, buffer);
}

/* ---- the update ---- */

static bcop_status initialise(const bcop_parameter *p, uint64_t seed) {
    const long size = bcop_parameter_size(p);
    double *a = malloc((size_t)larger(size, 1) * sizeof *a);
    if (!a)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory: %ld bytes for the initial %s",
                                size * (long)sizeof *a, p->name);
    bcop_rng rng = bcop_rng_open(seed, BCOP_RNG_INIT, 0, bcop_rng_name(p->name));
    for (long i = 0; i < size; i++)
        a[i] = bcop_rng_normal(&rng);
    const bcop_status status = bcop_qr_orthonormal(p->rows, p->cols, a);
    for (long i = 0; i < size; i++)
        p->value[i] = (float)a[i];
    free(a);
    return status;
}

bcop_status bcop_stage_initialise(bcop_stage *stage, uint64_t seed) {
    for (int i = 0; i < stage->count; i++) {
        const bcop_parameter *p = stage->parameter[i];
        if (p->orthonormal)
            BCOP_TRY(initialise(p, seed));
        else
            memset(p->value, 0, (size_t)bcop_parameter_size(p) * sizeof(float));
    }
    return BCOP_OK;
}

/* The projection and the optimizer's step, of the rows that this rank holds. */
static void step_entry(const bcop_stage *stage, bcop_stage_entry *e, double lr, long step) {
    const bcop_parameter *p = e->parameter;
    const bcop_step s = {.lr = lr,
                         .step = step,
                         .rows = p->orthonormal ? &e->rows : NULL,
                         .size = e->size,
                         .value = p->value + held_at(stage, e),
                         .gradient = e->gradient,
                         .state = e->state,
                         .scratch = stage->scratch};
    if (s.rows && p->depth > 0 && !s.rows->grid)
        bcop_tangent_project_image(s.rows, s.value, p->depth, p->image, p->right, s.gradient,
                                   s.scratch);
    else if (s.rows)
        bcop_tangent_project(s.rows, s.value, s.gradient, s.scratch);
    stage->rule.optimizer->step(stage->rule.optimizer_options, &s);
}

/* Whether several ranks hold rows of it. */
static bool is_divided(const bcop_stage_entry *e) {
    return e->placement == BCOP_PLACEMENT_SHARED || e->placement == BCOP_PLACEMENT_GRID;
}

/* An update goes in three phases, so that what one rank does for a group is done while the others
   have work of their own:
     FIRST   of shared blocks the step and all of the retraction, or its first part;
     ALONE   the second part where this rank is the root; and what it owns;
     LAST    the third part. */
typedef enum phase { FIRST, ALONE, LAST, PHASES } phase;

static bool has_part(const bcop_stage_entry *e, phase now) {
    if (!takes_part(e))
        return false;
    if (now == ALONE)
        return !is_divided(e) || works_at_root(e);
    return now == FIRST ? is_divided(e) : e->in_parts;
}

/* This phase's part in one parameter. */
static bcop_status update_entry(const bcop_stage *stage, bcop_stage_entry *e, phase now, double lr,
                                long step, int *iterations) {
    const bcop_bjorck_rule rule = stage->rule.bjorck;
    const bcop_parameter *p = e->parameter;
    float *w = p->value + held_at(stage, e), *scratch = stage->scratch;
    if (now == FIRST || !e->in_parts)
        step_entry(stage, e, lr, step);
    if (!p->orthonormal)
        return BCOP_OK;
    if (!e->in_parts)
        return bcop_bjorck_retract(rule, p->name, &e->rows, w, scratch, iterations);
    float *small = e->small ? e->small : scratch;
    float *rest = e->small ? scratch : scratch + bcop_bjorck_small(&e->rows);
    bcop_status status = BCOP_OK;
    if (now == FIRST) {
        e->outcome = (bcop_bjorck_outcome){0};
        bcop_bjorck_begin(&e->rows, w, small);
    } else if (now == ALONE) {
        bcop_bjorck_settle(rule, &e->rows, small, rest, &e->outcome);
    } else {
        status = bcop_bjorck_end(rule, p->name, &e->rows, w, small, rest, &e->outcome);
        *iterations = e->outcome.iterations;
    }
    return status;
}

/* The rows of shared blocks from the owners of their bundles, who formed the gradients. */
static void scatter_gradients(const bcop_stage *stage) {
    const bcop_traffic_kind before = bcop_traffic_label(BCOP_TRAFFIC_ROWS);
    for (int i = 0; i < stage->count; i++) {
        const bcop_stage_entry *e = &stage->entry[i];
        if (is_divided(e) && !e->parameter->factored)
            bcop_comm_scatter_floats(stage->comm, e->parameter->gradient, e->offset, e->owner,
                                     e->gradient);
    }
    bcop_traffic_label(before);
}

/* Updates what this rank holds. A failing rank stays in the schedule: others count on it. */
static bcop_status update_held(bcop_stage *stage, double lr, double bias_lr, long step,
                               int *iterations) {
    bcop_status failed = BCOP_OK;
    char message[512] = "";
    const bcop_traffic_kind before = bcop_traffic_label(BCOP_TRAFFIC_SUMS);
    for (int now = FIRST; now < PHASES; now++)
        for (int i = 0; i < stage->count; i++) {
            bcop_stage_entry *e = &stage->entry[i];
            if (!has_part(e, (phase)now))
                continue;
            const double began = bcop_spans_begin();
            int needed = 0;
            const bcop_status status = update_entry(
                stage, e, (phase)now, e->parameter->orthonormal ? lr : bias_lr, step, &needed);
            const bool ends = now == LAST || !e->in_parts;
            bcop_spans_end("update", e->parameter->name, began,
                           ends ? bcop_stage_flops(stage, i, needed) : 0);
            *iterations = needed > *iterations ? needed : *iterations;
            if (failed == BCOP_OK && status != BCOP_OK) {
                failed = status;
                snprintf(message, sizeof message, "%s", bcop_status_message());
            }
        }
    bcop_traffic_label(before);
    if (failed != BCOP_OK)
        bcop_status_fail(failed, "%s", message); /* the first; later ones have replaced it */
    return failed;
}

static void gather_blocks(const bcop_stage *stage) {
    for (int i = 0; i < stage->count; i++)
        if (stage->entry[i].offset)
            bcop_comm_gather_floats(stage->comm, stage->parameter[i]->value,
                                    stage->entry[i].offset);
}

bcop_status bcop_stage_update(bcop_stage *stage, double lr, double bias_lr, long step,
                              int *iterations) {
    *iterations = 0;
    scatter_gradients(stage);
    const bcop_status status = update_held(stage, lr, bias_lr, step, iterations);
    const bcop_traffic_kind before = bcop_traffic_label(BCOP_TRAFFIC_RECORD);
    const bcop_status agreed = bcop_comm_agree(stage->comm, status);
    if (agreed == BCOP_OK) {
        *iterations = (int)bcop_comm_max(stage->comm, *iterations);
        bcop_traffic_label(BCOP_TRAFFIC_BLOCKS);
        gather_blocks(stage);
    }
    bcop_traffic_label(before);
    return agreed;
}

/* ---- what an update costs ---- */

static void list_sums(const bcop_stage *stage, const bcop_stage_entry *e, int iterations,
                      bcop_traffic_visitor v) {
    const bcop_optimizer_kind *optimizer = stage->rule.optimizer;
    int sums = bcop_tangent_sums(&e->rows, e->parameter->depth);
    if (optimizer->sums)
        sums += optimizer->sums(stage->rule.optimizer_options, &e->rows);
    v.kind = BCOP_TRAFFIC_SUMS;
    bcop_bjorck_list(&e->rows, iterations, sums, optimizer->squares, v);
}

void bcop_stage_list(const bcop_stage *stage, int iterations, bcop_traffic_visitor v) {
    const int ranks = stage->comm->size, me = stage->comm->rank;
    if (ranks == 1)
        return;
    v.kind = BCOP_TRAFFIC_RECORD;
    bcop_traffic_tell_group(&v, BCOP_TRAFFIC_REDUCE, ranks, sizeof(int));    /* the agreement */
    bcop_traffic_tell_group(&v, BCOP_TRAFFIC_REDUCE, ranks, sizeof(double)); /* most iterations */
    for (int i = 0; i < stage->count; i++) {
        const bcop_stage_entry *e = &stage->entry[i];
        v.block = i;
        v.kind = BCOP_TRAFFIC_BLOCKS;
        if (e->offset && e->size > 0)
            bcop_traffic_tell_group(&v, BCOP_TRAFFIC_GATHER, ranks, e->size * (long)sizeof(float));
        if (!is_divided(e))
            continue;
        v.kind = BCOP_TRAFFIC_ROWS;
        for (int r = 0; r < ranks; r++)
            if (!e->parameter->factored && e->owner == me && r != me &&
                e->offset[r + 1] > e->offset[r])
                bcop_traffic_tell(&v, BCOP_TRAFFIC_SEND, r,
                                  (e->offset[r + 1] - e->offset[r]) * (long)sizeof(float));
        if (takes_part(e))
            list_sums(stage, e, iterations, v);
    }
}

void bcop_stage_count(const bcop_stage *stage, int iterations, bcop_traffic *t) {
    bcop_stage_list(stage, iterations, bcop_traffic_counter(t));
}

double bcop_stage_flops(const bcop_stage *stage, int i, int iterations) {
    const bcop_stage_entry *e = &stage->entry[i];
    const bcop_optimizer_kind *optimizer = stage->rule.optimizer;
    if (!e->parameter->orthonormal || e->size == 0)
        return 0;
    return bcop_tangent_flops(&e->rows, e->parameter->depth) +
           bcop_bjorck_flops(&e->rows, iterations) +
           (optimizer->flops ? optimizer->flops(stage->rule.optimizer_options, &e->rows) : 0);
}

/* ---- optimizer state as a whole ---- */

long bcop_stage_slot_size(const bcop_stage_entry *e, int slot) {
    const long size = bcop_parameter_size(e->parameter);
    return e->slot[slot].single && size > 0 ? 1 : size;
}

void bcop_stage_collect(const bcop_stage *stage, const bcop_stage_entry *e, int slot,
                        float *whole) {
    const bool single = e->slot[slot].single;
    if (e->size > 0)
        memcpy(whole + (single ? 0 : held_at(stage, e)), e->state[slot],
               (size_t)(single ? 1 : e->size) * sizeof *whole);
    if (e->offset && single)
        bcop_comm_broadcast(stage->comm, whole, sizeof *whole, e->first);
    else if (e->offset)
        bcop_comm_gather_floats(stage->comm, whole, e->offset);
}

void bcop_stage_deliver(const bcop_stage *stage, const bcop_stage_entry *e, int slot,
                        const float *whole) {
    const bool single = e->slot[slot].single;
    if (e->size > 0)
        memcpy(e->state[slot], whole + (single ? 0 : held_at(stage, e)),
               (size_t)(single ? 1 : e->size) * sizeof *whole);
}

double bcop_stage_defect(int rows, int cols, const float *u) {
    const long size = (long)rows * cols, square = (long)cols * cols;
    double *wide = malloc((size_t)(size + square + 1) * sizeof *wide);
    if (!wide)
        return NAN;
    double *g = wide + size, sum = 0;
    for (long i = 0; i < size; i++)
        wide[i] = (double)u[i];
    bcop_product_gram_double(rows, cols, wide, g);
    for (int i = 0; i < cols; i++)
        for (int j = i; j < cols; j++)
            sum += (j > i ? 2 : 1) * pow(g[(long)i * cols + j] - (i == j), 2);
    free(wide);
    return cols ? sqrt(sum / cols) : 0;
}
