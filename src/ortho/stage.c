#include "ortho/stage.h"

#include "base/rng.h"
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

/* ---- who holds what ---- */

/* Below this an update takes less time than the messages that sharing it would need: 20 us at 50
   GFLOP/s. */
static const double small_cost = 1e6;

double bcop_stage_cost(int rows, int cols) {
    const double iterations = 2, n = cols, square = n * n;
    return rows >= 3L * cols ? 7 * rows * square + 6 * iterations * square * n
                             : (4 + 3 * iterations) * rows * square;
}

static double cost_of(const bcop_parameter *p) {
    return p->orthonormal ? bcop_stage_cost(p->rows, p->cols) : 0;
}

/* Whether the block is to be moved from rank to rank at all. */
static bool is_movable(const bcop_stage_rule *rule, const bcop_parameter *p) {
    if (!p->orthonormal || p->cols == 0 || rule->placement == BCOP_PLACEMENT_REPLICATED)
        return false;
    return rule->placement != BCOP_PLACEMENT_AUTO || cost_of(p) >= small_cost;
}

/* Longest processing time first: the costliest block left goes to the rank with the least load. */
static void deal(int ranks, int count, bcop_parameter *const parameter[],
                 bcop_stage_place place[]) {
    double load[BCOP_STAGE_RANKS_MAX] = {0};
    for (int i = 0; i < count; i++) {
        if (place[i].placement != BCOP_PLACEMENT_SHARED)
            continue;
        const int panels = bcop_rows_panels(parameter[i]->rows);
        const int members = panels < ranks ? panels : ranks;
        for (int r = 0; r < members; r++)
            load[r] += cost_of(parameter[i]) / members;
    }
    for (;;) {
        int costliest = -1, idlest = 0;
        for (int i = 0; i < count; i++)
            if (place[i].owner < 0 &&
                (costliest < 0 || cost_of(parameter[i]) > cost_of(parameter[costliest])))
                costliest = i;
        if (costliest < 0)
            return;
        for (int r = 1; r < ranks; r++)
            if (load[r] < load[idlest])
                idlest = r;
        place[costliest].owner = idlest;
        load[idlest] += cost_of(parameter[costliest]);
    }
}

/* Marks one more block as SHARED: the first that costs more than `limit`, or, for a limit of 0,
   than one rank's part of all that is not shared. False when there is none. */
static bool share_one(const bcop_stage_rule *rule, double limit, int ranks, int count,
                      bcop_parameter *const parameter[], bcop_stage_place place[]) {
    double rest = 0;
    for (int i = 0; i < count; i++)
        rest += place[i].placement == BCOP_PLACEMENT_OWNED ? cost_of(parameter[i]) : 0;
    for (int i = 0; i < count; i++) {
        const bcop_parameter *p = parameter[i];
        const bool wanted = rule->placement == BCOP_PLACEMENT_SHARED ||
                            cost_of(p) > (limit > 0 ? limit : rest / ranks);
        if (place[i].placement == BCOP_PLACEMENT_OWNED && wanted && bcop_rows_panels(p->rows) > 1) {
            place[i] = (bcop_stage_place){BCOP_PLACEMENT_SHARED, 0};
            return true;
        }
    }
    return false;
}

void bcop_stage_choose(const bcop_stage_rule *rule, int ranks, int count,
                       bcop_parameter *const parameter[], bcop_stage_place place[]) {
    for (int i = 0; i < count; i++) {
        const bool moves = ranks > 1 && is_movable(rule, parameter[i]);
        place[i] = (bcop_stage_place){moves ? BCOP_PLACEMENT_OWNED : BCOP_PLACEMENT_REPLICATED,
                                      moves ? -1 : 0};
    }
    if (rule->placement != BCOP_PLACEMENT_OWNED)
        while (share_one(rule, rule->share_above, ranks, count, parameter, place))
            ;
    deal(ranks, count, parameter, place);
}

/* ---- groups and memory ---- */

_Static_assert(1 << (BCOP_STAGE_GROUPS - 1) == BCOP_ROWS_PANELS_MAX,
               "a group for every number of panels");

bcop_status bcop_stage_open(bcop_stage *stage, const bcop_comm *comm, bcop_stage_rule rule,
                            int count, bcop_parameter *const parameter[]) {
    *stage = (bcop_stage){.rule = rule, .comm = comm, .count = count, .parameter = parameter};
    bcop_status status = BCOP_OK;
    stage->place = calloc((size_t)count + 1, sizeof *stage->place);
    if (stage->place)
        bcop_stage_choose(&rule, comm->size, count, parameter, stage->place);
    else
        status = bcop_status_fail(BCOP_INTERNAL, "out of memory for %d parameters", count);
    BCOP_TRY(bcop_comm_agree(comm, status));
    bcop_comm_broadcast(comm, stage->place, count * (long)sizeof *stage->place, 0);
    for (int g = 1; g < BCOP_STAGE_GROUPS && 1 << g < comm->size; g++)
        BCOP_TRY(bcop_comm_split(comm, 1 << g, &stage->group[g]));
    return BCOP_OK;
}

void bcop_stage_close(bcop_stage *stage) {
    for (int g = 0; g < BCOP_STAGE_GROUPS; g++)
        bcop_comm_release(&stage->group[g]);
    free(stage->place);
    stage->place = NULL;
}

/* The ranks that hold a block of so many panels; size 0 when this one is not among them. */
static const bcop_comm *group_for(const bcop_stage *stage, bcop_stage_place place, int panels) {
    static const bcop_comm none;
    if (place.placement == BCOP_PLACEMENT_REPLICATED)
        return &bcop_comm_alone;
    if (place.placement == BCOP_PLACEMENT_OWNED)
        return place.owner == stage->comm->rank ? &bcop_comm_alone : &none;
    int g = 0;
    while (1 << g < panels)
        g++;
    return panels >= stage->comm->size ? stage->comm : &stage->group[g];
}

/* The number of ranks that hold rows of a shared block. */
static int holders(const bcop_stage *stage, int panels) {
    return panels < stage->comm->size ? panels : stage->comm->size;
}

/* offset[ranks + 1]: where each rank's rows begin. */
static void fill_offsets(const bcop_stage *stage, const bcop_stage_entry *e, long *offset) {
    const bcop_parameter *p = e->parameter;
    const int panels = bcop_rows_panels(p->rows);
    const int last = e->placement == BCOP_PLACEMENT_SHARED ? holders(stage, panels) : 1;
    for (int r = 0; r <= stage->comm->size; r++) {
        const int member = r - e->owner;
        const int run = member <= 0 ? 0 : member >= last ? panels : panels * member / last;
        offset[r] = (long)p->rows * run / panels * p->cols;
    }
}

static void plan_entry(bcop_stage *stage, bcop_parameter *p, bcop_stage_place place,
                       bcop_stage_entry *e, bcop_arena *arena) {
    *e = (bcop_stage_entry){.parameter = p,
                            .placement = place.placement,
                            .owner = place.owner,
                            .size = bcop_parameter_size(p)};
    p->value = bcop_arena_floats(arena, bcop_parameter_size(p));
    p->gradient = bcop_arena_floats(arena, bcop_parameter_size(p));
    if (p->orthonormal) {
        const bcop_comm *group = group_for(stage, place, bcop_rows_panels(p->rows));
        if (group->size > 0)
            bcop_rows_plan(&e->rows, group, p->rows, p->cols, arena);
        e->size = (long)e->rows.count * p->cols;
    }
    if (place.placement != BCOP_PLACEMENT_REPLICATED) {
        e->offset = bcop_arena_take(arena, stage->comm->size + 1, sizeof(long));
        if (e->offset)
            fill_offsets(stage, e, e->offset);
    }
    e->slots = stage->rule.optimizer->slots(p->orthonormal, e->slot);
    for (int s = 0; s < e->slots; s++)
        e->state[s] = bcop_arena_floats(arena, e->slot[s].single && e->size ? 1 : e->size);
}

static long scratch_for(const bcop_stage *stage, const bcop_stage_entry *e) {
    if (!e->parameter->orthonormal || e->size == 0)
        return 0;
    const long optimizer =
        stage->rule.optimizer->scratch ? stage->rule.optimizer->scratch(&e->rows) : 0;
    return larger(optimizer, larger(bcop_tangent_scratch(&e->rows), bcop_bjorck_scratch(&e->rows)));
}

void bcop_stage_plan(bcop_stage *stage, bcop_arena *arena) {
    stage->entry = bcop_arena_take(arena, stage->count, sizeof *stage->entry);
    long scratch = 0, sums = 0;
    for (int i = 0; i < stage->count; i++) {
        bcop_stage_entry entry;
        plan_entry(stage, stage->parameter[i], stage->place[i], &entry, arena);
        if (stage->entry)
            stage->entry[i] = entry;
        scratch = larger(scratch, scratch_for(stage, &entry));
        sums = larger(sums, entry.rows.count > 0 ? bcop_rows_buffer(&entry.rows) : 0);
    }
    stage->scratch = bcop_arena_floats(arena, scratch);
    float *buffer = bcop_arena_floats(arena, sums);
    for (int i = 0; stage->entry && i < stage->count; i++)
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

/* Where this rank's rows begin in the whole, in floats. */
static long held_at(const bcop_stage *stage, const bcop_stage_entry *e) {
    return e->offset ? e->offset[stage->comm->rank] : 0;
}

/* The rows that this rank holds of one parameter. */
static bcop_status update_entry(const bcop_stage *stage, bcop_stage_entry *e, double lr, long step,
                                int *iterations) {
    const bcop_parameter *p = e->parameter;
    const bcop_step s = {.lr = lr,
                         .step = step,
                         .rows = p->orthonormal ? &e->rows : NULL,
                         .size = e->size,
                         .value = p->value + held_at(stage, e),
                         .gradient = p->gradient + held_at(stage, e),
                         .state = e->state,
                         .scratch = stage->scratch};
    if (s.rows)
        bcop_tangent_project(s.rows, s.value, s.gradient, s.scratch);
    stage->rule.optimizer->step(stage->rule.optimizer_options, &s);
    if (!s.rows)
        return BCOP_OK;
    int needed;
    BCOP_TRY(bcop_bjorck_retract(stage->rule.bjorck, p->name, s.rows, s.value, s.scratch, &needed));
    *iterations = needed > *iterations ? needed : *iterations;
    return BCOP_OK;
}

bcop_status bcop_stage_update(bcop_stage *stage, double lr, double bias_lr, long step,
                              int *iterations) {
    /* Shared blocks first, so that nobody waits for a rank that is busy with its own. A failing
       rank stays in the schedule: others count on it for the next block. */
    bcop_status failed = BCOP_OK;
    char message[512] = "";
    *iterations = 0;
    for (int shared = 1; shared >= 0; shared--)
        for (int i = 0; i < stage->count; i++) {
            bcop_stage_entry *e = &stage->entry[i];
            if ((e->placement == BCOP_PLACEMENT_SHARED) != shared || e->size == 0)
                continue;
            const bcop_status status =
                update_entry(stage, e, e->parameter->orthonormal ? lr : bias_lr, step, iterations);
            if (failed == BCOP_OK && status != BCOP_OK) {
                failed = status;
                snprintf(message, sizeof message, "%s", bcop_status_message());
            }
        }
    if (failed != BCOP_OK)
        bcop_status_fail(failed, "%s", message); /* the first; later ones have replaced it */
    BCOP_TRY(bcop_comm_agree(stage->comm, failed));
    *iterations = (int)bcop_comm_max(stage->comm, *iterations);
    for (int i = 0; i < stage->count; i++)
        if (stage->entry[i].offset)
            bcop_comm_gather_floats(stage->comm, stage->parameter[i]->value,
                                    stage->entry[i].offset);
    return BCOP_OK;
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
        bcop_comm_broadcast(stage->comm, whole, sizeof *whole, e->owner);
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
