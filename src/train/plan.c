#include "train/plan.h"

#include <math.h>
#include <stdlib.h>

/* ---- names ---- */

const char *bcop_plan_term_name(bcop_plan_term term) {
    static const char *const name[BCOP_PLAN_TERMS] = {
        "compute", "agree", "exchange", "form", "rows", "update", "sums", "blocks", "build"};
    return name[term];
}

bcop_phase bcop_plan_phase_of(bcop_plan_term term) {
    static const bcop_phase phase[BCOP_PLAN_TERMS] = {
        BCOP_PHASE_COMPUTE,  BCOP_PHASE_AGREE,  BCOP_PHASE_EXCHANGE,
        BCOP_PHASE_EXCHANGE, BCOP_PHASE_UPDATE, BCOP_PHASE_UPDATE,
        BCOP_PHASE_UPDATE,   BCOP_PHASE_UPDATE, BCOP_PHASE_BUILD};
    return phase[term];
}

/* ---- messages ---- */

typedef struct listener {
    bcop_plan_rank *rank; /* of all */
    int me;
} listener;

static double levels(int ranks) {
    return ranks > 1 ? ceil(log2(ranks)) : 0;
}

static void flow(bcop_plan_rank *r, const bcop_traffic_message *m, double messages, double bytes) {
    bcop_plan_flow *f = &r->flow[m->kind][m->way == BCOP_TRAFFIC_SEND];
    f->messages += messages;
    f->bytes += bytes;
}

static void hear(void *context, const bcop_traffic_message *m) {
    const listener *l = context;
    bcop_plan_rank *me = &l->rank[l->me];
    const double count = (double)m->count, all = count * (double)m->bytes;
    me->sent.messages[m->kind] += m->count;
    me->sent.bytes[m->kind] += m->count * m->bytes;
    if (m->way == BCOP_TRAFFIC_REDUCE) {
        flow(me, m, 2 * levels(m->group) * count, 2 * all);
        me->received[m->kind] += m->count * m->bytes;
    } else if (m->way == BCOP_TRAFFIC_GATHER) {
        const long each = m->count / (m->group - 1) * m->bytes;
        flow(me, m, levels(m->group) * count / (m->group - 1), all);
        for (int r = m->base; r < m->base + m->group; r++)
            if (r != l->me) {
                flow(&l->rank[r], m, 0, (double)each);
                l->rank[r].received[m->kind] += each;
            }
    } else {
        flow(me, m, count, all);
        flow(&l->rank[m->to], m, 0, all);
        l->rank[m->to].received[m->kind] += m->count * m->bytes;
    }
}

/* ---- from counts to seconds ---- */

static double seconds_of(const bcop_machine *machine, bcop_plan_flow f) {
    return bcop_machine_send(machine, f.messages, f.bytes);
}

static bcop_plan_flow both(const bcop_plan_rank *r, bcop_traffic_kind kind) {
    return (bcop_plan_flow){r->flow[kind][0].messages + r->flow[kind][1].messages,
                            r->flow[kind][0].bytes + r->flow[kind][1].bytes};
}

/* The terms that a rank knows for itself; not the gathers of blocks. */
static void price_rank(bcop_plan_rank *r, const bcop_machine *m) {
    double *s = r->seconds;
    s[BCOP_PLAN_COMPUTE] = bcop_machine_multiply(m, r->compute);
    s[BCOP_PLAN_AGREE] = seconds_of(m, both(r, BCOP_TRAFFIC_RECORD));
    const double early = seconds_of(m, r->flow[BCOP_TRAFFIC_GRADIENTS][1]) +
                         seconds_of(m, r->flow[BCOP_TRAFFIC_FACTORS][1]);
    const double backward = r->lanes > 0 ? s[BCOP_PLAN_COMPUTE] * 2 / 3 / r->lanes : 0;
    s[BCOP_PLAN_EXCHANGE] =
        fmax(0, early - m->overlap * backward) + seconds_of(m, r->flow[BCOP_TRAFFIC_GRADIENTS][0]);
    s[BCOP_PLAN_FORM] = bcop_machine_multiply(m, r->form) + bcop_machine_copy(m, r->added);
    s[BCOP_PLAN_ROWS] = seconds_of(m, both(r, BCOP_TRAFFIC_ROWS));
    s[BCOP_PLAN_UPDATE] = bcop_machine_update(m, r->update);
    s[BCOP_PLAN_SUMS] = seconds_of(m, both(r, BCOP_TRAFFIC_SUMS));
    s[BCOP_PLAN_BUILD] = bcop_machine_multiply(m, r->build);
}

/* The gathers of new blocks: every rank has part in each. */
static double price_blocks(const bcop_stage *stage, const bcop_machine *m) {
    const int ranks = stage->comm->size;
    double gathers = 0, bytes = 0;
    for (int i = 0; i < stage->count; i++)
        if (stage->entry[i].offset) {
            gathers++;
            bytes += (double)bcop_parameter_size(stage->parameter[i]) * sizeof(float);
        }
    return gathers * bcop_machine_tree(m, ranks) +
           bcop_machine_send(m, 0, 2 * bytes * (ranks - 1) / ranks);
}

/* Each phase lasts as long as its slowest rank's terms; `blocks`: seconds of all their gathers. */
static void price(bcop_plan_step *step, const bcop_machine *m, double blocks,
                  bcop_plan_rank rank[]) {
    for (int r = 0; r < step->ranks; r++) {
        rank[r].added = 3.0 * (double)rank[r].received[BCOP_TRAFFIC_GRADIENTS];
        price_rank(&rank[r], m);
        rank[r].seconds[BCOP_PLAN_BLOCKS] = blocks;
    }
    step->seconds = 0;
    for (int phase = 0; phase < BCOP_PHASES; phase++) {
        int slowest = 0;
        step->phase[phase] = -1;
        for (int r = 0; r < step->ranks; r++) {
            double sum = 0;
            for (int t = 0; t < BCOP_PLAN_TERMS; t++)
                if ((int)bcop_plan_phase_of((bcop_plan_term)t) == phase)
                    sum += rank[r].seconds[t];
            if (sum > step->phase[phase]) {
                step->phase[phase] = sum;
                slowest = r;
            }
        }
        for (int t = 0; t < BCOP_PLAN_TERMS; t++)
            if ((int)bcop_plan_phase_of((bcop_plan_term)t) == phase)
                step->term[t] = rank[slowest].seconds[t];
        step->seconds += step->phase[phase];
    }
}

/* ---- one rank ---- */

static void add_stage(const bcop_stage *stage, int iterations, bcop_plan_rank *r) {
    for (int i = 0; i < stage->count; i++)
        r->update += bcop_stage_flops(stage, i, iterations);
}

static void add_layers(const bcop_worker *w, bcop_plan_rank *r) {
    const bcop_exchange *x = &w->exchange;
    for (int i = 0; i < w->model->count; i++) {
        const bcop_layer *layer = &w->model->layer[i];
        const int k = x->part_of[i];
        r->compute += bcop_worker_flops(layer) * r->images;
        r->build += layer->build_flops;
        if (k >= 0 && (x->part[k].root < 0 || x->part[k].root == w->comm->rank))
            r->form += layer->pull_flops;
    }
    for (int i = 0; i < x->factors; i++) {
        const bcop_exchange_factor *f = &x->factor[i];
        r->form += 2.0 * x->batch * f->rows[w->comm->rank] * f->cols[w->comm->rank];
    }
}

static void add_worker(const bcop_worker *w, int iterations, bcop_plan_rank rank[]) {
    listener l = {rank, w->comm->rank};
    bcop_plan_rank *r = &rank[l.me];
    r->lanes = w->exchange.sums.run.count;
    r->images = r->lanes * w->model->run;
    r->bytes = w->arena.used + w->arena.most;
    for (int c = 0; c < BCOP_MEMORIES; c++)
        r->memory[c] = w->memory[c];
    add_layers(w, r);
    add_stage(&w->stage, iterations, r);
    bcop_worker_list(w, iterations, (bcop_traffic_visitor){.visit = hear, .context = &l});
}

/* ---- a plan ---- */

static bcop_status add_rank(bcop_plan *plan, const bcop_worker_data *data, int rank) {
    if (rank == 0) {
        BCOP_TRY(bcop_worker_open(&plan->worker, &plan->comm, &plan->experiment, data));
        add_worker(&plan->worker, plan->iterations, plan->rank);
        return BCOP_OK;
    }
    const bcop_comm comm = bcop_comm_imagined(rank, plan->comm.size);
    bcop_worker worker;
    const bcop_status status = bcop_worker_open(&worker, &comm, &plan->experiment, data);
    if (status == BCOP_OK)
        add_worker(&worker, plan->iterations, plan->rank);
    bcop_worker_close(&worker);
    return status;
}

bcop_status bcop_plan_open(bcop_plan *plan, const bcop_experiment *experiment,
                           const bcop_worker_data *data, int ranks, int iterations,
                           const bcop_machine *machine) {
    *plan = (bcop_plan){.iterations = iterations,
                        .comm = bcop_comm_imagined(0, ranks),
                        .experiment = *experiment,
                        .step = {.ranks = ranks,
                                 .lanes = experiment->train.lanes,
                                 .batch = experiment->train.batch}};
    plan->rank = calloc((size_t)ranks, sizeof *plan->rank);
    if (!plan->rank)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory for %d ranks", ranks);
    for (int r = 0; r < ranks; r++)
        BCOP_TRY(add_rank(plan, data, r));
    const bcop_stage *stage = &plan->worker.stage;
    for (int i = 0; i < stage->count; i++)
        plan->step.placed[stage->entry[i].placement]++;
    for (int r = 0; r < ranks; r++)
        for (int k = 0; k < BCOP_TRAFFIC_KINDS; k++) {
            plan->traffic.messages[k] += plan->rank[r].sent.messages[k];
            plan->traffic.bytes[k] += plan->rank[r].sent.bytes[k];
        }
    price(&plan->step, machine, price_blocks(stage, machine), plan->rank);
    return BCOP_OK;
}

void bcop_plan_close(bcop_plan *plan) {
    if (plan->worker.comm)
        bcop_worker_close(&plan->worker);
    free(plan->rank);
    *plan = (bcop_plan){0};
}

bcop_experiment bcop_plan_grow(const bcop_experiment *experiment, int ranks) {
    bcop_experiment e = *experiment;
    if (ranks > e.train.lanes)
        e.train.lanes = ranks;
    const int short_of = e.train.batch % e.train.lanes;
    e.train.batch += short_of ? e.train.lanes - short_of : 0;
    if (e.ortho.grid_rows > 0 && ranks % e.ortho.grid_rows != 0)
        e.ortho.grid_rows = 0;
    return e;
}

/* ---- blocks alone ---- */

static bcop_status open_blocks(const bcop_stage_rule *rule, int count, bcop_parameter *const p[],
                               const bcop_comm *comm, int iterations, bcop_plan_rank rank[],
                               bcop_stage *stage) {
    bcop_arena measure = {.name = "blocks"};
    BCOP_TRY(bcop_stage_open(stage, comm, *rule, count, p));
    bcop_stage_plan(stage, &measure);
    listener l = {rank, comm->rank};
    const bcop_traffic_visitor v = {.visit = hear, .context = &l, .kind = BCOP_TRAFFIC_GRADIENTS};
    for (int i = 0; i < count; i++) { /* as replicated blocks would be one message, count it once */
        const long size = bcop_parameter_size(p[i]);
        const bool apart = stage->entry[i].placement != BCOP_PLACEMENT_REPLICATED;
        const bcop_lane_part part = {0, apart ? size : size * count, bcop_stage_root(stage, i)};
        bcop_lanes sum;
        bcop_lanes_plan_parts(&sum, comm, comm->size, part.length, 1, &part, &measure);
        if (apart || i == 0)
            bcop_lanes_list(&sum, &v);
    }
    bcop_stage_list(stage, iterations, v);
    add_stage(stage, iterations, &rank[comm->rank]);
    return BCOP_OK;
}

static bcop_status price_all(const bcop_stage_rule *rule, int count, bcop_parameter *const p[],
                             int ranks, int iterations, const bcop_machine *machine,
                             bcop_plan_rank rank[], double *seconds) {
    double blocks = 0;
    for (int r = 0; r < ranks; r++) {
        const bcop_comm comm = bcop_comm_imagined(r, ranks);
        bcop_stage stage = {0};
        const bcop_status status = open_blocks(rule, count, p, &comm, iterations, rank, &stage);
        if (status == BCOP_OK && r == 0)
            blocks = price_blocks(&stage, machine);
        const bool possible =
            status == BCOP_OK && (rule->placement.wanted != BCOP_PLACEMENT_SHARED ||
                                  stage.entry[0].placement == BCOP_PLACEMENT_SHARED);
        bcop_stage_close(&stage);
        if (!possible) {
            *seconds = INFINITY;
            return status;
        }
    }
    bcop_plan_step step = {.ranks = ranks};
    price(&step, machine, blocks, rank);
    *seconds = step.seconds;
    return BCOP_OK;
}

bcop_status bcop_plan_blocks(const bcop_stage_rule *rule, bcop_placement placement, int count,
                             int n, int ranks, int iterations, const bcop_machine *machine,
                             double *seconds) {
    bcop_stage_rule placed = *rule;
    placed.placement.wanted = placement;
    placed.placement.share_above = 0;
    bcop_parameter *block = calloc((size_t)count, sizeof *block);
    bcop_parameter **pointer = calloc((size_t)count, sizeof *pointer);
    bcop_plan_rank *rank = calloc((size_t)ranks, sizeof *rank);
    bcop_status status = BCOP_OK;
    if (!block || !pointer || !rank) {
        status = bcop_status_fail(BCOP_INTERNAL, "out of memory for %d blocks", count);
    } else {
        for (int i = 0; i < count; i++) {
            block[i] = (bcop_parameter){.rows = n, .cols = n, .orthonormal = true, .bundle = i};
            pointer[i] = &block[i];
        }
        status = price_all(&placed, count, pointer, ranks, iterations, machine, rank, seconds);
    }
    free(rank);
    free(pointer);
    free(block);
    return status;
}

bcop_status bcop_plan_crossover(const bcop_stage_rule *rule, bcop_placement placement, int count,
                                int ranks, int iterations, const bcop_machine *machine, int *n) {
    for (*n = 64; *n <= 8192; *n += 64) {
        double everywhere, placed;
        BCOP_TRY(bcop_plan_blocks(rule, BCOP_PLACEMENT_REPLICATED, count, *n, ranks, iterations,
                                  machine, &everywhere));
        BCOP_TRY(bcop_plan_blocks(rule, placement, count, *n, ranks, iterations, machine, &placed));
        if (placed < everywhere)
            return BCOP_OK;
    }
    *n = 0;
    return BCOP_OK;
}
