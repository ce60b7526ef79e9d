#include "app/bench_comm.h"

#include "app/bench_timing.h"
#include "base/log.h"
#include "comm/lanes.h"
#include "comm/probe.h"

/* 8 B, 64 B, ... 16 MiB between two ranks; from 1 KiB on for the collectives. */
enum { SIZES = 8, FIRST_COLLECTIVE = 3, LARGEST = 8 << 3 * (SIZES - 1), KINDS = 3 };

static long size_of(int i) {
    return 8L << 3 * i;
}

typedef struct message {
    const bcop_comm *comm;
    void *buffer;
    long bytes;
    int times;
    bcop_lanes sum; /* of a vector of so many bytes */
    long *offset;   /* [ranks + 1]: equal parts of it, in floats */
} message;

/* Small ones are measured many at a time: the clock and the common start take microseconds. */
static int times_for(long bytes) {
    return bytes <= 4096 ? 200 : bytes <= 1 << 18 ? 20 : 2;
}

static int lanes_for(int ranks) {
    int lanes = 16;
    while (lanes < ranks)
        lanes *= 2;
    return lanes;
}

/* The memory of all sizes: one buffer for the messages, one for the sums. */
static void plan(const bcop_comm *comm, message m[static SIZES], bcop_arena *arena) {
    void *buffer = bcop_arena_take(arena, LARGEST, 1);
    long sums = 0;
    for (int i = 0; i < SIZES; i++) {
        m[i] = (message){
            .comm = comm, .buffer = buffer, .bytes = size_of(i), .times = times_for(size_of(i))};
        const long floats = m[i].bytes / (long)sizeof(float);
        m[i].offset = bcop_arena_take(arena, comm->size + 1, sizeof(long));
        for (int r = 0; m[i].offset && r <= comm->size; r++)
            m[i].offset[r] = floats * r / comm->size;
        bcop_lanes_plan(&m[i].sum, comm, lanes_for(comm->size), floats, arena);
        const long need = bcop_lanes_buffer(&m[i].sum);
        sums = need > sums ? need : sums;
    }
    float *shared = bcop_arena_floats(arena, sums);
    for (int i = 0; shared && i < SIZES; i++)
        bcop_lanes_attach(&m[i].sum, shared);
}

/* ---- what is measured ---- */

static bcop_status run_exchange(void *of) {
    message *m = of;
    bcop_probe_exchange(m->comm, m->buffer, m->bytes, m->times);
    return BCOP_OK;
}

static bcop_status run_gather(void *of) {
    message *m = of;
    for (int i = 0; i < m->times; i++)
        bcop_comm_gather_floats(m->comm, m->buffer, m->offset);
    return BCOP_OK;
}

static bcop_status run_merge(void *of) {
    message *m = of;
    for (int i = 0; i < m->times; i++)
        bcop_comm_merge(m->comm, m->buffer, m->bytes / (long)sizeof(double));
    return BCOP_OK;
}

/* The lanes of this rank, whatever is in them; then finishing is left. */
static void prepare_sum(void *of) {
    message *m = of;
    bcop_lanes_start(&m->sum);
    for (int i = 0; i < m->sum.run.count; i++)
        bcop_lanes_push(&m->sum);
}

static bcop_status run_finish(void *of) {
    message *m = of;
    bcop_lanes_finish(&m->sum);
    return BCOP_OK;
}

/* ---- the tables ---- */

static const bcop_bench_rounds rounds = {5, 0.25, 20, true};

static bcop_status run_messages(bcop_bench_task *task, message m[static SIZES]) {
    bcop_bench_item item[SIZES];
    json_t *rows = task->json ? json_array() : NULL;
    for (int i = 0; i < SIZES; i++)
        item[i] = (bcop_bench_item){.run = run_exchange, .of = &m[i]};
    BCOP_TRY(bcop_bench_timing_run(task->comm, rounds, SIZES, item));
    bcop_log_info("comm: messages from rank 0 to rank 1 and back, one way, medians.");
    bcop_log_info("%12s %12s %10s", "bytes", "us", "GB/s");
    for (int i = 0; i < SIZES; i++) {
        const double seconds = item[i].seconds / (2 * m[i].times);
        const double gbs = 1e-9 * (double)m[i].bytes / seconds;
        bcop_log_info("%12ld %12.2f %10.3f", m[i].bytes, 1e6 * seconds, gbs);
        if (rows)
            json_array_append_new(rows,
                                  json_pack("{s:I, s:f, s:f}", "bytes", (json_int_t)m[i].bytes,
                                            "us", 1e6 * seconds, "gbs", gbs));
        if (i == 0)
            task->machine.latency_us = 1e6 * seconds;
        task->machine.bandwidth_gbs = gbs; /* the largest is the last */
    }
    if (rows)
        json_object_set_new(json_object_get(task->json, "comm"), "messages", rows);
    return BCOP_OK;
}

static bcop_status run_collectives(bcop_bench_task *task, message m[static SIZES]) {
    static const char *const name[KINDS] = {"gather", "merge", "lanes"};
    json_t *rows = task->json ? json_array() : NULL;
    bcop_log_info("comm: collectives over %d ranks, us (GB/s of the whole vector), medians: gather "
                  "of equal parts,",
                  task->comm->size);
    bcop_log_info("merge (float64 all-reduce), and the end of a sum over %d lanes (float32).",
                  m[0].sum.lanes);
    bcop_log_info("%12s %20s %20s %20s", "bytes", name[0], name[1], name[2]);
    for (int i = FIRST_COLLECTIVE - 1; i < SIZES; i++) {
        bcop_bench_item item[KINDS] = {{.run = run_gather, .of = &m[i]},
                                       {.run = run_merge, .of = &m[i]},
                                       {.prepare = prepare_sum, .run = run_finish, .of = &m[i]}};
        BCOP_TRY(bcop_bench_timing_run(task->comm, rounds, KINDS, item));
        double us[KINDS], gbs[KINDS];
        for (int k = 0; k < KINDS; k++) {
            us[k] = 1e6 * item[k].seconds / (k < KINDS - 1 ? m[i].times : 1);
            gbs[k] = 1e-3 * (double)m[i].bytes / us[k];
        }
        bcop_log_info("%12ld %12.1f (%5.2f) %12.1f (%5.2f) %12.1f (%5.2f)", m[i].bytes, us[0],
                      gbs[0], us[1], gbs[1], us[2], gbs[2]);
        for (int k = 0; rows && k < KINDS; k++)
            json_array_append_new(rows,
                                  json_pack("{s:s, s:I, s:f, s:f}", "what", name[k], "bytes",
                                            (json_int_t)m[i].bytes, "us", us[k], "gbs", gbs[k]));
    }
    if (rows)
        json_object_set_new(json_object_get(task->json, "comm"), "collectives", rows);
    return BCOP_OK;
}

static bcop_status run_both(bcop_bench_task *task) {
    message m[SIZES];
    bcop_arena arena = {.name = "the benchmark"};
    plan(task->comm, m, &arena);
    bcop_status status = bcop_comm_agree(task->comm, bcop_arena_reserve(&arena));
    if (status == BCOP_OK) {
        plan(task->comm, m, &arena);
        status = run_messages(task, m);
    }
    if (status == BCOP_OK)
        status = run_collectives(task, m);
    bcop_arena_free(&arena);
    return status;
}

bcop_status bcop_bench_comm_run(bcop_bench_task *task) {
    if (task->json)
        json_object_set_new(task->json, "comm",
                            json_pack("{s:[], s:[]}", "messages", "collectives"));
    if (task->comm->size > 1)
        return run_both(task);
    bcop_log_info("comm: one rank sends no messages; start with mpirun -n 2 or more");
    return BCOP_OK;
}
