#include "train/pattern.h"

#include <stdlib.h>

/* A message as one of its two ends sees it. */
typedef struct event {
    bcop_traffic_message message;
    int peer; /* who is at the other end; -1: of all ranks */
    bool out;
} event;

typedef struct diary {
    event *event;
    long count, capacity;
    double *update; /* [parameters]: seconds of this rank's part of a block's update */
} diary;

typedef struct pattern {
    const bcop_plan *plan;
    int me; /* who is listing */
    bool full;
    diary *diary; /* [ranks] */
} pattern;

/* ---- listening ---- */

static void note(pattern *p, int rank, event e) {
    diary *d = &p->diary[rank];
    if (d->count == d->capacity) {
        const long capacity = d->capacity ? 2 * d->capacity : 64;
        event *more = realloc(d->event, (size_t)capacity * sizeof *more);
        p->full |= !more;
        if (!more)
            return;
        d->event = more;
        d->capacity = capacity;
    }
    d->event[d->count++] = e;
}

static void note_pair(pattern *p, int to, bcop_traffic_message m) {
    note(p, p->me, (event){m, to, true});
    note(p, to, (event){m, p->me, false});
}

static void hear(void *context, const bcop_traffic_message *message) {
    pattern *p = context;
    bcop_traffic_message m = *message;
    if (m.way == BCOP_TRAFFIC_GATHER)
        m.count /= m.group - 1;
    if (m.way == BCOP_TRAFFIC_SEND || m.way == BCOP_TRAFFIC_FINISH)
        note_pair(p, m.to, m);
    else if (m.kind != BCOP_TRAFFIC_SUMS)
        note(p, p->me, (event){m, -1, true});
    else
        for (int step = 1; step < m.group; step++)
            note_pair(p, m.base + (p->me - m.base + step) % m.group, m);
}

static bcop_status listen(pattern *p, const bcop_worker_data *data, const bcop_machine *machine,
                          int rank) {
    const bcop_plan *plan = p->plan;
    const bcop_comm comm = bcop_comm_imagined(rank, plan->comm.size);
    const int parameters = plan->worker.stage.count;
    double *update = p->diary[rank].update = calloc((size_t)parameters + 1, sizeof *update);
    if (!update)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory for %d parameters", parameters);
    bcop_worker worker;
    const bcop_status status = bcop_worker_open(&worker, &comm, &plan->experiment, data);
    if (status == BCOP_OK) {
        p->me = rank;
        bcop_worker_list(&worker, plan->iterations,
                         (bcop_traffic_visitor){.visit = hear, .context = p});
        for (int i = 0; i < parameters; i++)
            update[i] =
                bcop_machine_update(machine, bcop_stage_flops(&worker.stage, i, plan->iterations));
    }
    bcop_worker_close(&worker);
    if (p->full)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory for the messages of %d ranks",
                                plan->comm.size);
    return status;
}

/* ---- writing ---- */

/* Which events are wanted: block -1: any. */
typedef struct filter {
    bcop_traffic_kind kind;
    bcop_traffic_way way;
    int block;
} filter;

static bool fits(const event *e, filter f) {
    return e->message.kind == f.kind && e->message.way == f.way &&
           (f.block < 0 || e->message.block == f.block);
}

/* How often the most frequent fitting event happens; 0: there is none. */
static long rounds(const diary *d, filter f) {
    long most = 0;
    for (long i = 0; i < d->count; i++)
        if (fits(&d->event[i], f) && d->event[i].message.count > most)
            most = d->event[i].message.count;
    return most;
}

static void compute(double seconds, FILE *out) {
    if (seconds > 0)
        fprintf(out, ",[\"compute\",%.9g]", seconds);
}

/* Messages that fit and have more than so many rounds, each once: receives first, as the program
   does. */
static void start_round(const diary *d, filter f, long round, FILE *out) {
    for (int sends = 0; sends < 2; sends++)
        for (long i = 0; i < d->count; i++) {
            const event *e = &d->event[i];
            if (fits(e, f) && e->message.count > round && e->peer >= 0 && e->out == (sends > 0))
                fprintf(out, ",[\"%s\",%d,%ld]", e->out ? "isend" : "irecv", e->peer,
                        e->message.bytes);
        }
}

static void start(const diary *d, filter f, FILE *out) {
    start_round(d, f, 0, out);
}

static void wait(FILE *out) {
    fputs(",[\"waitall\"]", out);
}

static void reductions(const diary *d, bool of_stage, FILE *out) {
    bool first = true;
    for (long i = 0; i < d->count; i++) {
        const event *e = &d->event[i];
        if (e->message.kind != BCOP_TRAFFIC_RECORD)
            continue;
        if (first != of_stage) /* the first closes the step, the others the update */
            fprintf(out, ",[\"allreduce\",%ld]", e->message.bytes);
        first = false;
    }
}

/* What rank r gives to the gather of the sums that every rank wants. */
static long gathered(const pattern *p, int r) {
    const filter f = {BCOP_TRAFFIC_GRADIENTS, BCOP_TRAFFIC_GATHER, -1};
    const diary *d = &p->diary[r];
    long bytes = 0;
    for (long i = 0; i < d->count; i++)
        bytes += fits(&d->event[i], f) ? d->event[i].message.bytes : 0;
    return bytes;
}

/* The tables: what ranks give to the gather of the sums, and to that of each block that moves. */
static void write_head(const pattern *p, FILE *out) {
    const bcop_stage *stage = &p->plan->worker.stage;
    const int ranks = p->plan->comm.size;
    fprintf(out, "{\"ranks\":%d,\"tables\":[", ranks);
    for (int r = 0; r < ranks; r++)
        fprintf(out, "%s%ld", r ? "," : "[", gathered(p, r));
    fputc(']', out);
    for (int i = 0; i < stage->count; i++) {
        const long *offset = stage->entry[i].offset;
        for (int r = 0; offset && r < ranks; r++)
            fprintf(out, "%s%ld", r ? "," : ",[",
                    (offset[r + 1] - offset[r]) * (long)sizeof(float));
        fputs(offset ? "]" : "", out);
    }
    fputs("]}\n", out);
}

static void gather_sums(const pattern *p, FILE *out) {
    for (int r = 0; r < p->plan->comm.size; r++)
        if (gathered(p, r) > 0) {
            fputs(",[\"allgatherv\",0]", out);
            return;
        }
}

static void gather_blocks(const pattern *p, FILE *out) {
    const bcop_stage *stage = &p->plan->worker.stage;
    int table = 0;
    for (int i = 0; i < stage->count; i++)
        if (stage->entry[i].offset)
            fprintf(out, ",[\"allgatherv\",%d]", ++table);
}

/* Forward and backward, the closing of the step, and gradients to their holders. */
static void write_gradients(const pattern *p, int rank, const bcop_machine *m, FILE *out) {
    const bcop_plan_rank *r = &p->plan->rank[rank];
    const diary *d = &p->diary[rank];
    const double all = r->seconds[BCOP_PLAN_COMPUTE], adding = bcop_machine_copy(m, r->added);
    const double hidden = r->lanes > 0 ? m->overlap * all * 2 / 3 / r->lanes : 0;
    compute(all - hidden, out);
    start(d, (filter){BCOP_TRAFFIC_GRADIENTS, BCOP_TRAFFIC_SEND, -1}, out);
    start(d, (filter){BCOP_TRAFFIC_FACTORS, BCOP_TRAFFIC_SEND, -1}, out);
    compute(hidden, out);
    reductions(d, false, out);
    wait(out);
    compute(adding, out);
    start(d, (filter){BCOP_TRAFFIC_GRADIENTS, BCOP_TRAFFIC_FINISH, -1}, out);
    wait(out);
    gather_sums(p, out);
    compute(r->seconds[BCOP_PLAN_FORM] - adding, out);
}

/* One shared block: its update is cut by its sums. */
static void write_shared(const diary *d, int block, FILE *out) {
    const filter nodes = {BCOP_TRAFFIC_SUMS, BCOP_TRAFFIC_SEND, block},
                 finished = {BCOP_TRAFFIC_SUMS, BCOP_TRAFFIC_FINISH, block},
                 slices = {BCOP_TRAFFIC_SUMS, BCOP_TRAFFIC_GATHER, block},
                 squares = {BCOP_TRAFFIC_SUMS, BCOP_TRAFFIC_REDUCE, block};
    const long sums = rounds(d, nodes), reduced = rounds(d, squares);
    for (long i = 0; i < sums; i++) {
        compute(d->update[block] / (double)(sums + 1), out);
        start_round(d, nodes, i, out);
        wait(out);
        start_round(d, finished, i, out);
        start_round(d, slices, i, out);
        wait(out);
    }
    for (long i = 0; i < reduced; i++) {
        start(d, squares, out);
        wait(out);
    }
    compute(d->update[block] / (double)(sums + 1), out);
}

static void write_update(const pattern *p, int rank, FILE *out) {
    const bcop_stage *stage = &p->plan->worker.stage;
    const diary *d = &p->diary[rank];
    start(d, (filter){BCOP_TRAFFIC_ROWS, BCOP_TRAFFIC_SEND, -1}, out);
    wait(out);
    double rest = 0;
    for (int i = 0; i < stage->count; i++)
        if (stage->entry[i].placement == BCOP_PLACEMENT_SHARED)
            write_shared(d, i, out);
        else
            rest += d->update[i];
    compute(rest, out);
    reductions(d, true, out);
    gather_blocks(p, out);
    compute(p->plan->rank[rank].seconds[BCOP_PLAN_BUILD], out);
}

bcop_status bcop_pattern_write(const bcop_plan *plan, const bcop_worker_data *data,
                               const bcop_machine *machine, FILE *out) {
    const int ranks = plan->comm.size;
    pattern p = {.plan = plan, .diary = calloc((size_t)ranks, sizeof *p.diary)};
    if (!p.diary)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory for %d ranks", ranks);
    bcop_status status = BCOP_OK;
    for (int r = 0; status == BCOP_OK && r < ranks; r++)
        status = listen(&p, data, machine, r);
    if (status == BCOP_OK)
        write_head(&p, out);
    for (int r = 0; status == BCOP_OK && r < ranks; r++) {
        fprintf(out, "{\"rank\":%d,\"actions\":[[\"compute\",0]", r);
        write_gradients(&p, r, machine, out);
        write_update(&p, r, out);
        fputs("]}\n", out);
    }
    for (int r = 0; r < ranks; r++) {
        free(p.diary[r].event);
        free(p.diary[r].update);
    }
    free(p.diary);
    return status;
}
