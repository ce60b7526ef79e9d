#include "app/plan_print.h"

#include "base/log.h"

#include <stdio.h>

typedef bcop_plan_report report;

static const double MIB = 1 << 20;

/* How many ranks hold rows of a parameter. */
static int holders(const bcop_plan *plan, const bcop_stage_entry *e) {
    if (!e->offset)
        return plan->step.ranks;
    int count = 0;
    for (int r = 0; r < plan->step.ranks; r++)
        count += e->offset[r + 1] > e->offset[r];
    return count;
}

static double images_per_second(const bcop_plan_step *step) {
    return step->batch / step->seconds;
}

static double speedup(const report *p, const bcop_plan_step *step) {
    return images_per_second(step) / images_per_second(&p->scale[0]);
}

/* The greatest and the mean over the ranks of what `of` takes from one. */
typedef struct spread {
    double most, mean;
    int rank;
} spread;

static spread spread_of(const bcop_plan *plan, double (*of)(const bcop_plan_rank *, int), int arg) {
    spread s = {-1, 0, 0};
    for (int r = 0; r < plan->step.ranks; r++) {
        const double x = of(&plan->rank[r], arg);
        s.mean += x / plan->step.ranks;
        if (x > s.most) {
            s.most = x;
            s.rank = r;
        }
    }
    return s;
}

static double memory_of(const bcop_plan_rank *r, int class) {
    return (double)(class < 0 ? r->bytes : r->memory[class]);
}

static double sent_by(const bcop_plan_rank *r, int kind) {
    return (double)r->sent.bytes[kind];
}

enum { LOAD_COMPUTE, LOAD_FORM, LOAD_UPDATE, LOAD_SENT, LOAD_RECEIVED, LOADS };
static const char *const load_name[LOADS] = {"compute_flops", "form_flops", "update_flops",
                                             "sent_bytes", "received_bytes"};

static double load_of(const bcop_plan_rank *r, int what) {
    double sent = 0, received = 0;
    for (int k = 0; k < BCOP_TRAFFIC_KINDS; k++) {
        sent += (double)r->sent.bytes[k];
        received += (double)r->received[k];
    }
    const double load[LOADS] = {r->compute, r->form, r->update, sent, received};
    return load[what];
}

/* 1: all ranks alike. */
static double imbalance(spread s) {
    return s.mean > 0 ? s.most / s.mean : 1;
}

/* ---- text ---- */

static void print_machine(const bcop_machine *machine) {
    char line[512];
    int length = 0;
    for (const bcop_machine_key *k = bcop_machine_keys; k->name; k++)
        length += snprintf(line + length, sizeof line - (size_t)length, "%s%s=%g",
                           length ? "," : "", k->name, bcop_machine_value(machine, k));
    bcop_log_info("machine: %s", line);
}

static void print_layers(const bcop_plan *plan) {
    const bcop_model *m = plan->worker.model;
    bcop_log_info("%-16s %16s %12s %12s %12s %12s %12s", "layer", "out", "MFLOP/image",
                  "kept B/image", "gradient B", "build MFLOP", "pull MFLOP");
    for (int i = 0; i < m->count; i++) {
        const bcop_layer *l = &m->layer[i];
        char shape[48];
        snprintf(shape, sizeof shape, "%dx%dx%d", l->out.height, l->out.width, l->out.channels);
        bcop_log_info("%-16s %16s %12.3f %12ld %12ld %12.3f %12.3f", l->name, shape, l->flops / 1e6,
                      l->saved * (long)sizeof(float), l->lane_gradient * (long)sizeof(float),
                      l->build_flops / 1e6, l->pull_flops / 1e6);
    }
}

static void print_placements(const bcop_plan *plan) {
    const bcop_stage *stage = &plan->worker.stage;
    bcop_log_info("%-24s %7s %6s  %-10s %6s %6s %12s", "parameter", "rows", "cols", "placement",
                  "owner", "ranks", "MFLOP/update");
    for (int i = 0; i < stage->count; i++) {
        const bcop_stage_entry *e = &stage->entry[i];
        const bcop_parameter *p = e->parameter;
        char owner[16] = "-";
        if (e->offset)
            snprintf(owner, sizeof owner, "%d", e->owner);
        bcop_log_info("%-24s %7d %6d  %-10s %6s %6d %12.3f", p->name, p->rows, p->cols,
                      bcop_placement_name(e->placement), owner, holders(plan, e),
                      p->orthonormal ? bcop_placement_cost(p->rows, p->cols) / 1e6 : 0);
    }
}

static void print_loads(const bcop_plan *plan) {
    bcop_log_info("%-16s %14s %6s %14s %9s", "load of a rank", "most", "rank", "mean", "most/mean");
    for (int c = -1; c < BCOP_MEMORIES; c++) {
        const spread s = spread_of(plan, memory_of, c);
        char name[32];
        snprintf(name, sizeof name, "memory %s", c < 0 ? "" : bcop_worker_memory((bcop_memory)c));
        bcop_log_info("%-16s %10.2f MiB %6d %10.2f MiB %9.3f", name, s.most / MIB, s.rank,
                      s.mean / MIB, imbalance(s));
    }
    for (int i = 0; i < LOADS; i++) {
        const spread s = spread_of(plan, load_of, i);
        bcop_log_info("%-16s %14.6g %6d %14.6g %9.3f", load_name[i], s.most, s.rank, s.mean,
                      imbalance(s));
    }
}

static void print_traffic(const bcop_plan *plan) {
    bcop_log_info("%-16s %14s %14s %16s", "sent per step", "messages", "bytes", "most by a rank");
    for (int k = 0; k < BCOP_TRAFFIC_KINDS; k++)
        if (plan->traffic.messages[k] > 0)
            bcop_log_info("%-16s %14ld %14ld %16.0f", bcop_traffic_name((bcop_traffic_kind)k),
                          plan->traffic.messages[k], plan->traffic.bytes[k],
                          spread_of(plan, sent_by, k).most);
}

static void print_step(const bcop_plan *plan) {
    char line[512];
    int length = 0;
    for (int t = 0; t < BCOP_PLAN_TERMS; t++)
        length += snprintf(line + length, sizeof line - (size_t)length, "%s%s %.3f", t ? ", " : "",
                           bcop_plan_term_name((bcop_plan_term)t), 1e3 * plan->step.term[t]);
    bcop_log_info("step: %.3f ms, %.0f images/s (ms: %s)", 1e3 * plan->step.seconds,
                  images_per_second(&plan->step), line);
}

static void print_scaling(const report *p) {
    bcop_log_info("%6s %6s %6s %10s %10s %8s %6s %8s %6s %9s %7s %6s  %s", "ranks", "lanes",
                  "batch", "step ms", "images/s", "speedup", "eff.", "compute", "agree", "exchange",
                  "update", "build", "repl./owned/shared/grid");
    const bcop_plan_step *first = &p->scale[0];
    for (int i = 0; i < BCOP_PLAN_SCALES; i++) {
        const bcop_plan_step *s = &p->scale[i];
        const double part = 100 / s->seconds, *phase = s->phase;
        const char *grown = "";
        if (s->lanes != first->lanes)
            grown = s->batch != first->batch ? "  more lanes, larger batch" : "  more lanes";
        bcop_log_info("%6d %6d %6d %10.3f %10.0f %8.2f %5.0f%% %7.1f%% %5.1f%% %8.1f%% %6.1f%% "
                      "%5.1f%%  %d/%d/%d/%d%s",
                      s->ranks, s->lanes, s->batch, 1e3 * s->seconds, images_per_second(s),
                      speedup(p, s), 100 * speedup(p, s) / s->ranks,
                      part * phase[BCOP_PHASE_COMPUTE], part * phase[BCOP_PHASE_AGREE],
                      part * phase[BCOP_PHASE_EXCHANGE], part * phase[BCOP_PHASE_UPDATE],
                      part * phase[BCOP_PHASE_BUILD], s->placed[BCOP_PLACEMENT_REPLICATED],
                      s->placed[BCOP_PLACEMENT_OWNED], s->placed[BCOP_PLACEMENT_SHARED],
                      s->placed[BCOP_PLACEMENT_GRID], grown);
    }
}

static void print_crossover(const report *p) {
    bcop_log_info("square blocks n x n that pay against replicating them (- none up to 8192)");
    bcop_log_info("%6s %16s %24s", "ranks", "one, shared", "one per rank, owned");
    for (int i = 0; i < BCOP_PLAN_GROUPS; i++) {
        char text[2][32] = {"-", "-"};
        const int n[2] = {p->crossover[i].shared, p->crossover[i].owned};
        for (int k = 0; k < 2; k++)
            if (n[k] > 0)
                snprintf(text[k], sizeof text[k], "n >= %d", n[k]);
        bcop_log_info("%6d %16s %24s", p->crossover[i].ranks, text[0], text[1]);
    }
}

void bcop_plan_print_text(const report *p) {
    const bcop_plan_step *s = &p->plan.step;
    bcop_log_info("plan of %s: %d ranks, %d lanes, batch %d, %d Bjorck iterations a block",
                  p->plan.experiment.root.name, s->ranks, s->lanes, s->batch, p->plan.iterations);
    print_machine(p->machine);
    print_layers(&p->plan);
    print_placements(&p->plan);
    print_loads(&p->plan);
    print_traffic(&p->plan);
    print_step(&p->plan);
    print_scaling(p);
    print_crossover(p);
}

/* ---- JSON ---- */

static json_t *json_placements(const bcop_plan *plan) {
    const bcop_stage *stage = &plan->worker.stage;
    json_t *list = json_array();
    for (int i = 0; i < stage->count; i++) {
        const bcop_stage_entry *e = &stage->entry[i];
        const bcop_parameter *p = e->parameter;
        json_t *owner = e->offset ? json_integer(e->owner) : json_null();
        json_array_append_new(
            list,
            json_pack("{s:s, s:i, s:i, s:b, s:b, s:s, s:o, s:i, s:f}", "block", p->name, "rows",
                      p->rows, "cols", p->cols, "orthonormal", (int)p->orthonormal, "factored",
                      (int)p->factored, "placement", bcop_placement_name(e->placement), "owner",
                      owner, "holders", holders(plan, e), "cost",
                      p->orthonormal ? bcop_placement_cost(p->rows, p->cols) : 0.0));
    }
    return list;
}

static json_t *json_layers(const bcop_plan *plan) {
    const bcop_model *m = plan->worker.model;
    json_t *list = json_array();
    for (int i = 0; i < m->count; i++) {
        const bcop_layer *l = &m->layer[i];
        const int size = (int)sizeof(float);
        json_array_append_new(list, json_pack("{s:i, s:s, s:[iii], s:f, s:I, s:I, s:b, s:f, s:f}",
                                              "index", i, "kind", l->kind->name, "out",
                                              l->out.height, l->out.width, l->out.channels, "flops",
                                              l->flops, "kept_bytes", (json_int_t)l->saved * size,
                                              "gradient_bytes", (json_int_t)l->lane_gradient * size,
                                              "factored", (int)l->factored, "build_flops",
                                              l->build_flops, "pull_flops", l->pull_flops));
    }
    return list;
}

/* Bytes by class, of all classes, of one rank. */
static json_t *json_rank(const bcop_plan_rank *r, int index) {
    json_t *memory = json_object(), *sent = json_object(), *load = json_object();
    for (int c = 0; c < BCOP_MEMORIES; c++)
        json_object_set_new(memory, bcop_worker_memory((bcop_memory)c),
                            json_integer((json_int_t)r->memory[c]));
    json_object_set_new(memory, "total", json_integer((json_int_t)r->bytes));
    for (int k = 0; k < BCOP_TRAFFIC_KINDS; k++)
        json_object_set_new(
            sent, bcop_traffic_name((bcop_traffic_kind)k),
            json_pack("{s:I, s:I, s:I}", "messages", (json_int_t)r->sent.messages[k], "bytes",
                      (json_int_t)r->sent.bytes[k], "received_bytes", (json_int_t)r->received[k]));
    for (int i = 0; i < LOADS; i++)
        json_object_set_new(load, load_name[i], json_real(load_of(r, i)));
    return json_pack("{s:i, s:i, s:i, s:o, s:o, s:o}", "rank", index, "lanes", r->lanes, "images",
                     r->images, "memory", memory, "communication", sent, "load", load);
}

static json_t *json_memory(const bcop_plan *plan) {
    json_t *object = json_object();
    for (int c = -1; c < BCOP_MEMORIES; c++)
        json_object_set_new(object, c < 0 ? "total" : bcop_worker_memory((bcop_memory)c),
                            json_integer((json_int_t)spread_of(plan, memory_of, c).most));
    return object;
}

static json_t *json_traffic(const bcop_plan *plan) {
    json_t *object = json_object();
    for (int k = 0; k < BCOP_TRAFFIC_KINDS; k++)
        json_object_set_new(object, bcop_traffic_name((bcop_traffic_kind)k),
                            json_pack("{s:I, s:I, s:I}", "messages",
                                      (json_int_t)plan->traffic.messages[k], "bytes",
                                      (json_int_t)plan->traffic.bytes[k], "most_bytes",
                                      (json_int_t)spread_of(plan, sent_by, k).most));
    return object;
}

static json_t *json_imbalance(const bcop_plan *plan) {
    json_t *object = json_object();
    for (int i = 0; i < LOADS; i++)
        json_object_set_new(object, load_name[i],
                            json_real(imbalance(spread_of(plan, load_of, i))));
    json_object_set_new(object, "memory", json_real(imbalance(spread_of(plan, memory_of, -1))));
    return object;
}

static json_t *json_terms(const bcop_plan_step *s) {
    json_t *object = json_object();
    for (int t = 0; t < BCOP_PLAN_TERMS; t++)
        json_object_set_new(object, bcop_plan_term_name((bcop_plan_term)t), json_real(s->term[t]));
    return object;
}

static json_t *json_phases(const bcop_plan_step *s) {
    json_t *object = json_object();
    for (int i = 0; i < BCOP_PHASES; i++)
        json_object_set_new(object, bcop_worker_phase((bcop_phase)i), json_real(s->phase[i]));
    return object;
}

static json_t *json_scaling(const report *p) {
    json_t *list = json_array();
    for (int i = 0; i < BCOP_PLAN_SCALES; i++) {
        const bcop_plan_step *s = &p->scale[i];
        json_t *placed = json_object();
        for (int k = BCOP_PLACEMENT_REPLICATED; k < BCOP_PLAN_PLACEMENTS; k++)
            json_object_set_new(placed, bcop_placement_name((bcop_placement)k),
                                json_integer(s->placed[k]));
        json_array_append_new(
            list, json_pack("{s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:o, s:o, s:o}", "ranks", s->ranks,
                            "lanes", s->lanes, "batch", s->batch, "step_seconds", s->seconds,
                            "images_per_second", images_per_second(s), "speedup", speedup(p, s),
                            "efficiency", speedup(p, s) / s->ranks, "phases", json_phases(s),
                            "terms", json_terms(s), "placements", placed));
    }
    return list;
}

static json_t *json_crossover(const report *p) {
    json_t *list = json_array();
    for (int i = 0; i < BCOP_PLAN_GROUPS; i++) {
        const int shared = p->crossover[i].shared, owned = p->crossover[i].owned;
        json_array_append_new(list, json_pack("{s:i, s:o, s:o}", "ranks", p->crossover[i].ranks,
                                              "shared", shared ? json_integer(shared) : json_null(),
                                              "owned", owned ? json_integer(owned) : json_null()));
    }
    return list;
}

json_t *bcop_plan_print_json(const report *p) {
    const bcop_plan *plan = &p->plan;
    json_t *machine = json_object(), *ranks = json_array();
    for (const bcop_machine_key *k = bcop_machine_keys; k->name; k++)
        json_object_set_new(machine, k->name, json_real(bcop_machine_value(p->machine, k)));
    for (int r = 0; r < plan->step.ranks; r++)
        json_array_append_new(ranks, json_rank(&plan->rank[r], r));
    return json_pack(
        "{s:s, s:i, s:i, s:i, s:i, s:o, s:o, s:o, s:o, s:f, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
        "name", plan->experiment.root.name, "ranks", plan->step.ranks, "lanes", plan->step.lanes,
        "batch", plan->step.batch, "iterations", plan->iterations, "placements",
        json_placements(plan), "layers", json_layers(plan), "memory", json_memory(plan),
        "communication", json_traffic(plan), "step_seconds", plan->step.seconds, "phases",
        json_phases(&plan->step), "terms", json_terms(&plan->step), "imbalance",
        json_imbalance(plan), "per_rank", ranks, "machine", machine, "scaling", json_scaling(p),
        "crossover", json_crossover(p));
}
