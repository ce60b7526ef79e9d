#include "train/exchange.h"

#include "base/spans.h"

/* ---- tables ---- */

static void take_tables(bcop_exchange *x, bcop_arena *arena) {
    const int layers = x->model->count, ranks = x->comm->size;
    x->part = bcop_arena_take(arena, layers + 1, sizeof *x->part);
    x->waiting = bcop_arena_take(arena, layers + 1, sizeof *x->waiting);
    x->part_of = bcop_arena_take(arena, layers, sizeof *x->part_of);
    x->row = bcop_arena_take(arena, ranks + 1, sizeof *x->row);
    x->zero = bcop_arena_take(arena, ranks, sizeof *x->zero);
    int factors = 0;
    for (int i = 0; i < layers; i++)
        factors += x->model->layer[i].factored;
    x->factor = bcop_arena_take(arena, factors, sizeof *x->factor);
    for (int f = 0; f < factors; f++) {
        int *table = bcop_arena_take(arena, 3L * ranks, sizeof *table);
        if (table)
            x->factor[f] = (bcop_exchange_factor){
                .first = table, .rows = table + ranks, .cols = table + 2 * ranks};
    }
}

/* Who gets the sum of a layer's lane gradient; `first`: the layer's first parameter. */
static int root_of(const bcop_exchange *x, const bcop_layer *layer, int first) {
    return bcop_stage_root(x->stage, first + layer->factored);
}

static void fill_factor(bcop_exchange *x, int layer, int parameter) {
    bcop_exchange_factor *f = &x->factor[x->factors];
    const bcop_stage_entry *e = &x->stage->entry[parameter];
    const int rows = e->parameter->rows, cols = e->parameter->cols;
    f->layer = layer;
    f->entry = &x->stage->entry[parameter];
    for (int r = 0; r < x->comm->size; r++) {
        f->first[r] = e->offset ? (int)(e->offset[r] / cols) : 0;
        f->rows[r] = e->offset ? (int)(e->offset[r + 1] / cols) - f->first[r] : rows;
        f->cols[r] = f->rows[r] > 0 ? cols : 0;
    }
    x->factors++;
}

/* Puts a layer's lane gradient at the end of part k. */
static void place(bcop_exchange *x, int layer, int k, long *end) {
    bcop_layer *l = &x->model->layer[layer];
    l->lane_at = *end;
    *end += l->lane_gradient;
    x->part[k].length += l->lane_gradient;
    x->part_of[layer] = k;
}

/* One part for every layer whose bundle has an owner; then one for all the others. */
static void fill_tables(bcop_exchange *x, int lanes) {
    const bcop_model *m = x->model;
    const int images = x->batch / lanes;
    for (int r = 0; r < x->comm->size; r++) {
        const bcop_lane_run run = bcop_lanes_run(lanes, x->comm->size, r);
        x->row[r + 1] = (run.first + run.count) * images;
    }
    long end = 0;
    for (int pass = 0; pass < 2; pass++) {
        if (pass == 1)
            x->part[x->parts++] = (bcop_lane_part){end, 0, BCOP_LANE_EVERY};
        for (int i = 0, first = 0; i < m->count; first += m->layer[i++].parameters) {
            const bcop_layer *layer = &m->layer[i];
            if (pass == 0) {
                x->part_of[i] = -1;
                if (layer->factored)
                    fill_factor(x, i, first);
            }
            if (layer->lane_gradient == 0)
                continue;
            const int root = root_of(x, layer, first);
            if (pass == 0 && root != BCOP_LANE_EVERY) {
                x->part[x->parts] = (bcop_lane_part){end, 0, root};
                place(x, i, x->parts++, &end);
            } else if (pass == 1 && root == BCOP_LANE_EVERY) {
                place(x, i, x->parts - 1, &end);
            }
        }
    }
}

bcop_status bcop_exchange_open(bcop_exchange *x, const bcop_comm *comm, bcop_model *model,
                               bcop_stage *stage, int lanes, int batch) {
    *x = (bcop_exchange){.comm = comm,
                         .model = model,
                         .stage = stage,
                         .lanes = lanes,
                         .batch = batch,
                         .tables = {.name = "the exchange of gradients"}};
    take_tables(x, &x->tables);
    BCOP_TRY(bcop_arena_reserve(&x->tables));
    take_tables(x, &x->tables);
    fill_tables(x, lanes);
    return BCOP_OK;
}

void bcop_exchange_close(bcop_exchange *x) {
    bcop_arena_free(&x->tables);
}

void bcop_exchange_plan(bcop_exchange *x, bcop_arena *arena) {
    bcop_lanes_plan_parts(&x->sums, x->comm, x->lanes, x->model->lane_length, x->parts, x->part,
                          arena);
    float *buffer = bcop_arena_floats(arena, bcop_lanes_buffer(&x->sums));
    if (buffer)
        bcop_lanes_attach(&x->sums, buffer);
    for (int i = 0; i < x->factors; i++) {
        bcop_exchange_factor *f = &x->factor[i];
        const bcop_parameter *p = f->entry->parameter;
        bcop_columns_plan(&f->left, x->comm, p->rows, x->row, f->first, f->rows, arena);
        bcop_columns_plan(&f->right, x->comm, p->cols, x->row, x->zero, f->cols, arena);
        bcop_columns_plan(&f->image, x->comm, p->cols, x->row, x->zero, f->cols, arena);
        x->model->image[f->layer] = f->image.own;
        const bool left = x->model->layer[f->layer].input_left;
        x->model->input[f->layer] = left ? f->left.own : f->right.own;
        x->model->slope[f->layer] = left ? f->right.own : f->left.own;
    }
}

/* ---- a step ---- */

void bcop_exchange_start(bcop_exchange *x) {
    bcop_lanes_start(&x->sums);
    x->lane = 0;
    for (int k = 0; k < x->parts; k++)
        x->waiting[k] = 0;
    for (int i = 0; i < x->model->count; i++)
        if (x->part_of[i] >= 0)
            x->waiting[x->part_of[i]]++;
}

float *bcop_exchange_lane(const bcop_exchange *x) {
    return bcop_lanes_next(&x->sums);
}

/* MPI works on messages only inside its calls. */
static void progress(bcop_exchange *x) {
    bcop_lanes_progress(&x->sums);
    for (int f = 0; f < x->factors; f++) {
        bcop_columns_progress(&x->factor[f].left);
        bcop_columns_progress(&x->factor[f].right);
        bcop_columns_progress(&x->factor[f].image);
    }
}

void bcop_exchange_factors(bcop_exchange *x) {
    const bcop_traffic_kind before = bcop_traffic_label(BCOP_TRAFFIC_FACTORS);
    for (int f = 0; f < x->factors; f++) {
        bcop_columns_send(&x->factor[f].left);
        bcop_columns_send(&x->factor[f].right);
        bcop_columns_send(&x->factor[f].image);
    }
    bcop_traffic_label(before);
}

void bcop_exchange_done(void *context, int index) {
    bcop_exchange *x = context;
    const bcop_layer *layer = &x->model->layer[index];
    const int k = x->part_of[index];
    if (k >= 0)
        bcop_lanes_fold(&x->sums, layer->lane_at, layer->lane_gradient);
    const bcop_traffic_kind before = bcop_traffic_label(BCOP_TRAFFIC_GRADIENTS);
    if (k >= 0 && x->lane == x->sums.run.count - 1 && --x->waiting[k] == 0)
        bcop_lanes_send(&x->sums, k);
    progress(x);
    bcop_traffic_label(before);
}

void bcop_exchange_next(bcop_exchange *x) {
    bcop_lanes_advance(&x->sums);
    x->lane++;
}

void bcop_exchange_finish(bcop_exchange *x) {
    const bcop_traffic_kind before = bcop_traffic_label(BCOP_TRAFFIC_GRADIENTS);
    for (int k = 0; k < x->parts; k++)
        bcop_lanes_reduce(&x->sums, k);
    for (int k = 0; k < x->parts; k++) {
        const float *sum = bcop_lanes_receive(&x->sums, k);
        for (int i = 0; sum && i < x->model->count; i++) {
            bcop_layer *layer = &x->model->layer[i];
            if (x->part_of[i] != k)
                continue;
            const double began = bcop_spans_begin();
            layer->kind->pull(layer, sum + layer->lane_at - x->part[k].begin);
            bcop_spans_end("pull", layer->name, began, layer->pull_flops);
        }
    }
    bcop_traffic_label(before);
    for (int i = 0; i < x->factors; i++) {
        bcop_exchange_factor *f = &x->factor[i];
        const float *left = bcop_columns_receive(&f->left);
        bcop_parameter *p = f->entry->parameter;
        p->right = bcop_columns_receive(&f->right);
        p->image = bcop_columns_receive(&f->image);
        const double began = bcop_spans_begin();
        if (left && p->right)
            bcop_rows_outer(&f->entry->rows, x->batch, left, p->right, f->entry->gradient);
        bcop_spans_end("form", p->name, began, 2.0 * x->batch * (double)f->entry->size);
    }
}

void bcop_exchange_list(const bcop_exchange *x, bcop_traffic_visitor v) {
    v.kind = BCOP_TRAFFIC_GRADIENTS;
    bcop_lanes_list(&x->sums, &v);
    v.kind = BCOP_TRAFFIC_FACTORS;
    for (int i = 0; i < x->factors; i++) {
        bcop_columns_list(&x->factor[i].left, &v);
        bcop_columns_list(&x->factor[i].right, &v);
        bcop_columns_list(&x->factor[i].image, &v);
    }
}

void bcop_exchange_count(const bcop_exchange *x, bcop_traffic *t) {
    bcop_exchange_list(x, bcop_traffic_counter(t));
}
