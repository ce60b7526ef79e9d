#include "app/bench_stage.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

bcop_status bcop_bench_stage_open(bcop_bench_stage *b, const bcop_comm *comm,
                                  bcop_placement placement, bool alone, bcop_bench_shape shape) {
    *b = (bcop_bench_stage){
        .comm = alone ? &bcop_comm_alone : comm, .alone = alone, .wanted = placement};
    for (int i = 0; i < shape.blocks; i++) {
        bcop_parameter *p = b->list[i] = &b->parameter[i];
        *p = (bcop_parameter){.rows = shape.rows,
                              .cols = shape.cols,
                              .orthonormal = true,
                              .factored = true,
                              .bundle = i};
        snprintf(p->name, sizeof p->name, "%dx%d/%d", shape.rows, shape.cols, i);
    }
    bcop_option_default((bcop_options){bcop_optimizer_adam.options, &b->options});
    const bcop_stage_rule rule = {.bjorck = {.tolerance = 2e-6, .max_iterations = 30},
                                  .optimizer = &bcop_optimizer_adam,
                                  .optimizer_options = &b->options,
                                  .placement = {.wanted = placement}};
    return bcop_stage_open(&b->stage, b->comm, rule, shape.blocks, b->list);
}

void bcop_bench_stage_close(bcop_bench_stage *b) {
    bcop_stage_close(&b->stage);
}

void bcop_bench_stage_plan(bcop_bench_stage *b, bcop_arena *arena) {
    bcop_stage_plan(&b->stage, arena);
}

bcop_status bcop_bench_stage_fill(bcop_bench_stage *b, const bcop_bench_stage *from,
                                  const float *gradient) {
    b->gradient = gradient;
    if (!from)
        return bcop_stage_initialise(&b->stage, 1);
    for (int i = 0; i < b->stage.count; i++)
        memcpy(b->parameter[i].value, from->parameter[i].value,
               (size_t)bcop_parameter_size(&b->parameter[i]) * sizeof(float));
    return BCOP_OK;
}

bool bcop_bench_stage_applies(const bcop_bench_stage *b) {
    for (int i = 0; i < b->stage.count; i++)
        if (b->stage.choice[i].placement != b->wanted)
            return false;
    return true;
}

/* The gradients' rows with their holders, as a step leaves them: an update overwrites them. */
static void fill_gradients(void *of) {
    const bcop_bench_stage *b = of;
    for (int i = 0; i < b->stage.count; i++) {
        const bcop_stage_entry *e = &b->stage.entry[i];
        memcpy(e->gradient, b->gradient + (e->offset ? e->offset[b->comm->rank] : 0),
               (size_t)e->size * sizeof(float));
    }
}

/* Adam moves every number by about lr, so ||W^T W - I||_F is about sqrt(2) lr cols before the
   retraction, for which order 1 would need two iterations, and one of order 2 or 4 is enough, as in
   training. */
double bcop_bench_stage_step(int cols) {
    return 0.006 * pow(cols, -0.5625);
}

static bcop_status update(void *of) {
    bcop_bench_stage *b = of;
    int iterations = 0;
    BCOP_TRY(bcop_stage_update(&b->stage, bcop_bench_stage_step(b->parameter[0].cols), 0,
                               ++b->steps, &iterations));
    b->iterations += iterations;
    return BCOP_OK;
}

static void fill_work(void *of) {
    const bcop_bench_stage *b = of;
    const bcop_stage_entry *e = &b->stage.entry[0];
    memcpy(b->work, b->from + (e->offset ? e->offset[b->comm->rank] : 0),
           (size_t)e->size * sizeof(float));
}

static bcop_status retract(void *of) {
    bcop_bench_stage *b = of;
    int iterations;
    return bcop_bjorck_retract(b->stage.rule.bjorck, "the block", &b->stage.entry[0].rows, b->work,
                               b->stage.scratch, &iterations);
}

bcop_bench_item bcop_bench_stage_retraction(bcop_bench_stage *b, const float *from, float *work) {
    b->from = from;
    b->work = work;
    return (bcop_bench_item){.prepare = fill_work, .run = retract, .of = b, .alone = b->alone};
}

bcop_bench_item bcop_bench_stage_item(bcop_bench_stage *b) {
    return (bcop_bench_item){.prepare = fill_gradients, .run = update, .of = b, .alone = b->alone};
}
