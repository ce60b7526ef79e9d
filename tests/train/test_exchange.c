/* run: ranks 1 2 3 4 */
/* Gradients on their way: in every placement each holder gets the bits of one rank alone, and these
 * are the sum over single images in float64; what is counted is what is sent, and all of it is no
 * more than one plain all-reduce of the weights. */
#include "train/exchange.h"
#include "train/experiment.h"

#include "nn_fixture.h"
#include "oracle.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LANES = 8, BATCH = 16, RUN = BATCH / LANES, GROUP = 2 * RUN, CLASSES = 4, STEPS = 2 };

/* Convolutions with projector pairs; a block of two panels whose gradient is formed whole (512 x
   24), one whose gradient comes by factors (600 x 24); a dense layer by factors (600 x 10), and one
   by lanes, since the batch is large for it (10 x 4). */
static const char list[] = "[conv: {channels: 8, kernel: 3}, maxmin, "
                           "conv: {channels: 32, kernel: 4, stride: 2}, maxmin, "
                           "conv: {channels: 24, kernel: 4, stride: 4}, maxmin, "
                           "dense: {units: 600}, maxmin, "
                           "dense: {units: 10, bias: false}, maxmin, dense: {units: 4}]";
static const bcop_shape in = {8, 8, 3};

static bcop_comm comm;

static void check(bcop_status status) {
    if (status != BCOP_OK)
        fail_msg("%s", bcop_status_message());
}

typedef struct rig {
    bcop_config *config;
    bcop_model *model;
    void *options;
    bcop_stage stage;
    bcop_exchange exchange;
    bcop_arena arena;
    float *x, *gz; /* of the whole batch */
} rig;

static void create_model(rig *r) {
    static const bcop_reals zero = {.count = 1}, one = {.count = 1, .value = {1}};
    char yaml[1024];
    snprintf(yaml, sizeof yaml, "input: {}\nmodel: %s\n", list);
    check(bcop_config_parse(yaml, strlen(yaml), "test.yaml", &r->config));
    const bcop_node *root = bcop_config_root(r->config);
    check(bcop_model_create(bcop_config_find(root, "model"), bcop_config_find(root, "input"), &zero,
                            &one, in, CLASSES, BATCH, &r->model));
}

static void plan(rig *r) {
    bcop_model_plan(r->model, RUN, GROUP, true, &r->arena);
    bcop_stage_plan(&r->stage, &r->arena);
    bcop_exchange_plan(&r->exchange, &r->arena);
}

/* Normals rounded to float32, to be freed. */
static float *normals(uint64_t seed, long count) {
    double *wide = oracle_doubles(count);
    float *x = oracle_floats(count);
    oracle_random(seed, count, wide);
    oracle_to_float(count, wide, x);
    free(wide);
    return x;
}

static void fill(rig *r) {
    check(bcop_stage_initialise(&r->stage, 5));
    for (int i = 0; i < r->model->parameters; i++) {
        const bcop_parameter *p = r->model->parameter[i];
        if (p->orthonormal)
            continue;
        float *bias = normals(100 + (uint64_t)i, bcop_parameter_size(p));
        memcpy(p->value, bias, (size_t)bcop_parameter_size(p) * sizeof *bias);
        free(bias);
    }
    bcop_model_build(r->model);
    r->x = normals(1, BATCH * bcop_shape_size(in));
    r->gz = normals(2, (long)BATCH * CLASSES);
}

static void rig_open(rig *r, const bcop_comm *on, bcop_placement placement) {
    *r = (rig){.arena = {.name = "test"}};
    create_model(r);
    const bcop_optimizer_kind *kind = bcop_optimizer_kinds[0];
    r->options = calloc(1, kind->options_size);
    assert_non_null(r->options);
    bcop_option_default((bcop_options){kind->options, r->options});
    const bcop_stage_rule rule = {.bjorck = {.tolerance = 2e-6, .max_iterations = 30},
                                  .optimizer = kind,
                                  .optimizer_options = r->options,
                                  .placement = {.wanted = placement}};
    check(bcop_stage_open(&r->stage, on, rule, r->model->parameters, r->model->parameter));
    check(bcop_exchange_open(&r->exchange, on, r->model, &r->stage, LANES, BATCH));
    plan(r);
    check(bcop_arena_reserve(&r->arena));
    plan(r);
    fill(r);
}

static void rig_close(rig *r) {
    bcop_exchange_close(&r->exchange);
    bcop_stage_close(&r->stage);
    bcop_model_free(r->model);
    bcop_arena_free(&r->arena);
    bcop_config_free(r->config);
    free(r->options);
    free(r->x);
    free(r->gz);
}

/* So that what is not brought shows. */
static void spoil_gradients(rig *r) {
    for (int i = 0; i < r->stage.count; i++) {
        const bcop_stage_entry *e = &r->stage.entry[i];
        const bcop_parameter *p = e->parameter;
        for (long k = 0; k < e->size; k++)
            e->gradient[k] = NAN;
        for (long k = 0; p->gradient && k < bcop_parameter_size(p); k++)
            p->gradient[k] = NAN;
    }
}

static void step(rig *r) {
    const bcop_lane_run run = bcop_lanes_run(LANES, r->exchange.comm->size, r->exchange.comm->rank);
    spoil_gradients(r);
    bcop_exchange_start(&r->exchange);
    const int images = run.count * RUN;
    for (int row = 0; row < images; row += GROUP) {
        const long image = (long)run.first * RUN + row;
        const int n = images - row < GROUP ? images - row : GROUP;
        bcop_model_forward(r->model, n, row, r->x + image * bcop_shape_size(in));
        bcop_model_backward(r->model, n, row, r->gz + image * CLASSES);
        if (row + n == images)
            bcop_exchange_factors(&r->exchange);
        for (int first = 0; first < n; first += RUN) {
            bcop_model_run(r->model, RUN, row, first, bcop_exchange_lane(&r->exchange),
                           bcop_exchange_done, &r->exchange);
            bcop_exchange_next(&r->exchange);
        }
    }
    bcop_exchange_finish(&r->exchange);
}

/* ---- the same bits in every placement ---- */

static double all_ranks(long mine) {
    double each[4] = {0}, sum = 0;
    each[comm.rank] = (double)mine;
    bcop_comm_merge(&comm, each, 4);
    for (int n = 0; n < comm.size; n++)
        sum += each[n];
    return sum;
}

/* The whole gradient with those who form it; of a factored parameter the rows that a rank holds. */
static void compare(const rig *r, const rig *alone) {
    for (int i = 0; i < r->stage.count; i++) {
        const bcop_stage_entry *e = &r->stage.entry[i];
        const bcop_parameter *p = e->parameter;
        const float *expected = alone->model->parameter[i]->gradient;
        const int root = p->factored ? 0 : bcop_stage_root(&r->stage, i);
        if (p->factored && e->size > 0)
            assert_memory_equal(e->gradient, expected + (e->offset ? e->offset[comm.rank] : 0),
                                (size_t)e->size * sizeof(float));
        else if (!p->factored && (root == BCOP_LANE_EVERY || root == comm.rank))
            assert_memory_equal(p->gradient, expected,
                                (size_t)bcop_parameter_size(p) * sizeof(float));
        /* each row with one rank, or all with every rank */
        assert_true(all_ranks(e->size) ==
                    (double)bcop_parameter_size(p) * (e->offset ? 1 : comm.size));
    }
}

/* That the model has what this test is about. */
static void check_variety(const rig *r, bcop_placement placement) {
    int factored = 0, by_lanes = 0, shared_factors = 0, shared_whole = 0;
    for (int i = 0; i < r->model->count; i++) {
        const bcop_layer *layer = &r->model->layer[i];
        factored += layer->factored;
        by_lanes += strcmp(layer->kind->name, "dense") == 0 && !layer->factored;
    }
    for (int i = 0; i < r->stage.count; i++) {
        const bcop_stage_entry *e = &r->stage.entry[i];
        if (e->placement != BCOP_PLACEMENT_SHARED)
            continue;
        shared_factors += e->parameter->factored;
        shared_whole += !e->parameter->factored;
    }
    assert_int_equal(factored, 2);
    assert_int_equal(by_lanes, 1);
    if (comm.size == 1)
        return;
    if (placement == BCOP_PLACEMENT_SHARED)
        assert_true(shared_factors == 2 && shared_whole == 1);
    if (placement == BCOP_PLACEMENT_OWNED)
        assert_int_equal(r->exchange.parts, 5); /* three convolutions, a dense layer; the biases */
    if (placement == BCOP_PLACEMENT_REPLICATED)
        assert_int_equal(r->exchange.parts, 1);
}

/* What all ranks must send so that each holder of rows of a factored block has their columns of the
   left factor, and the right one and the image, of the images that are not its own. */
static double factor_bytes(const rig *r) {
    double floats = 0;
    for (int i = 0; i < r->stage.count; i++) {
        const bcop_stage_entry *e = &r->stage.entry[i];
        const bcop_parameter *p = e->parameter;
        for (int n = 0; p->factored && n < comm.size; n++) {
            const int own = bcop_lanes_run(LANES, comm.size, n).count * RUN;
            const long held = e->offset ? e->offset[n + 1] - e->offset[n] : bcop_parameter_size(p);
            if (held > 0)
                floats += (BATCH - own) * ((double)held / p->cols + 2 * p->cols);
        }
    }
    return floats * sizeof(float);
}

static void check_counted(const rig *r, const bcop_traffic *before, const bcop_traffic *after) {
    bcop_traffic expected = {0};
    bcop_exchange_count(&r->exchange, &expected);
    for (int kind = 0; kind < BCOP_TRAFFIC_KINDS; kind++) {
        assert_int_equal(after->messages[kind] - before->messages[kind], expected.messages[kind]);
        assert_int_equal(after->bytes[kind] - before->bytes[kind], expected.bytes[kind]);
    }
    assert_true(all_ranks(expected.bytes[BCOP_TRAFFIC_FACTORS]) == factor_bytes(r));
    const double gradients = all_ranks(expected.bytes[BCOP_TRAFFIC_GRADIENTS]);
    assert_true(comm.size == 1 ? gradients == 0 : gradients > 0);
    if (comm.size != 2 && comm.size != 4)
        return;
    /* aligned runs: never more than all sums to every rank would be, and that when they all go
       there */
    const double every = 2.0 * (comm.size - 1) * (double)r->model->lane_length * sizeof(float);
    assert_true(r->exchange.parts > 1 ? gradients < every : gradients == every);
}

static void test_every_placement(void **state) {
    (void)state;
    rig alone;
    rig_open(&alone, &bcop_comm_alone, BCOP_PLACEMENT_AUTO);
    step(&alone);
    for (int p = BCOP_PLACEMENT_AUTO; p <= BCOP_PLACEMENT_SHARED; p++) {
        rig r;
        rig_open(&r, &comm, (bcop_placement)p);
        check_variety(&r, (bcop_placement)p);
        for (int i = 0; i < STEPS; i++) {
            const bcop_traffic before = bcop_traffic_read();
            step(&r);
            const bcop_traffic after = bcop_traffic_read();
            check_counted(&r, &before, &after);
            compare(&r, &alone);
        }
        rig_close(&r);
    }
    rig_close(&alone);
}

/* ---- against single images ---- */

/* sum[parameters]: the gradients of single images, added up in float64. */
static void add_images(const rig *r, nn_fixture *f, double *sum[]) {
    float *lane = oracle_floats(f->model->lane_length);
    for (int n = 0; n < BATCH; n++) {
        bcop_model_forward(f->model, 1, 0, r->x + n * bcop_shape_size(in));
        bcop_model_backward(f->model, 1, 0, r->gz + (long)n * CLASSES);
        bcop_model_run(f->model, 1, 0, 0, lane, NULL, NULL);
        nn_fixture_pull(f, 1, lane);
        for (int i = 0; i < f->model->parameters; i++) {
            const bcop_parameter *p = f->model->parameter[i];
            for (long k = 0; k < bcop_parameter_size(p); k++)
                sum[i][k] += (double)p->gradient[k];
        }
    }
    free(lane);
}

static void test_sum_over_images(void **state) {
    (void)state;
    if (comm.rank > 0)
        return; /* nothing here depends on the ranks */
    rig alone;
    rig_open(&alone, &bcop_comm_alone, BCOP_PLACEMENT_AUTO);
    step(&alone);
    const int count = alone.model->parameters;
    nn_fixture f = nn_fixture_open(
        &(nn_setting){.list = list, .in = in, .classes = CLASSES, .batch = BATCH}, 1);
    double *sum[64];
    assert_true(count == f.model->parameters && count <= 64);
    for (int i = 0; i < count; i++) {
        const long size = bcop_parameter_size(f.model->parameter[i]);
        sum[i] = oracle_doubles(size);
        memcpy(f.model->parameter[i]->value, alone.model->parameter[i]->value,
               (size_t)size * sizeof(float));
    }
    bcop_model_build(f.model);
    add_images(&alone, &f, sum);
    double worst = 0;
    for (int i = 0; i < count; i++) {
        const bcop_parameter *p = alone.model->parameter[i];
        assert_true(oracle_frobenius(bcop_parameter_size(p), sum[i]) > 0.1);
        worst = fmax(worst, oracle_relative_error(bcop_parameter_size(p), sum[i], p->gradient));
        free(sum[i]);
    }
    print_message("largest relative error of a gradient: %.2g\n", worst);
    assert_true(worst < 1e-5);
    nn_fixture_close(&f);
    rig_close(&alone);
}

/* ---- the bytes of all ranks ---- */

static char *read_text(const char *name) {
    const char *folder = getenv("BCOP_SOURCE_DIR");
    assert_non_null(folder);
    char path[4096];
    snprintf(path, sizeof path, "%s/configs/%s.yaml", folder, name);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    char *text = calloc(1, 1 << 16);
    assert_non_null(text);
    assert_true(fread(text, 1, (1 << 16) - 1, file) > 0);
    fclose(file);
    return text;
}

static void open_model(const bcop_experiment *e, bcop_shape shape, bcop_model **model) {
    check(bcop_model_create(e->model_node, e->input_node, &e->input.mean, &e->input.std, shape, 10,
                            e->train.batch, model));
}

/* What one rank of a job that does not run hands to MPI to bring gradients to their holders and new
   blocks to everyone. */
static long bytes_of_rank(const bcop_experiment *e, bcop_shape shape, int rank, int ranks) {
    const bcop_comm one = bcop_comm_imagined(rank, ranks);
    bcop_model *model;
    bcop_stage stage;
    bcop_exchange exchange;
    bcop_arena arena = {.name = "test"};
    bcop_traffic t = {0};
    const bcop_stage_rule rule = {
        .bjorck = {.tolerance = e->ortho.tolerance, .max_iterations = e->ortho.max_iterations},
        .optimizer = bcop_experiment_optimizer(e),
        .optimizer_options = e->optimizer_options,
        .placement = {.share_above = e->ortho.share_above}};
    open_model(e, shape, &model);
    check(bcop_stage_open(&stage, &one, rule, model->parameters, model->parameter));
    check(bcop_exchange_open(&exchange, &one, model, &stage, e->train.lanes, e->train.batch));
    bcop_stage_plan(&stage, &arena);
    bcop_exchange_plan(&exchange, &arena);
    bcop_exchange_count(&exchange, &t);
    bcop_stage_count(&stage, 2, &t);
    bcop_exchange_close(&exchange);
    bcop_stage_close(&stage);
    bcop_model_free(model);
    return t.bytes[BCOP_TRAFFIC_GRADIENTS] + t.bytes[BCOP_TRAFFIC_FACTORS] +
           t.bytes[BCOP_TRAFFIC_ROWS] + t.bytes[BCOP_TRAFFIC_BLOCKS];
}

/* Numbers of an ordinary network of this shape: kernels, weights and biases. */
static long weights(const bcop_experiment *e, bcop_shape shape) {
    bcop_model *model;
    long sum = 0;
    open_model(e, shape, &model);
    for (int i = 0; i < model->count; i++) {
        const bcop_layer *layer = &model->layer[i];
        sum += bcop_layer_stored_count(layer);
        sum += bcop_layer_bias(layer) ? bcop_parameter_size(bcop_layer_bias(layer)) : 0;
    }
    bcop_model_free(model);
    return sum;
}

static void check_bytes(const char *name, bcop_shape shape, long expected_weights) {
    char *text = read_text(name);
    bcop_config *config;
    bcop_experiment e;
    check(bcop_config_parse(text, strlen(text), name, &config));
    check(bcop_experiment_read(config, &e));
    const long count = weights(&e, shape);
    assert_int_equal(count, expected_weights);
    for (int ranks = 2; ranks <= 16; ranks *= 2) {
        double bytes = 0;
        for (int r = 0; r < ranks; r++)
            bytes += (double)bytes_of_rank(&e, shape, r, ranks);
        const double plain = 2.0 * (ranks - 1) * (double)count * sizeof(float);
        print_message("%s, %d ranks: %.3f of a plain all-reduce\n", name, ranks, bytes / plain);
        assert_true(bytes > 0 && bytes <= plain);
    }
    bcop_experiment_free(&e);
    free(text);
}

static void test_no_more_than_a_plain_all_reduce(void **state) {
    (void)state;
    if (comm.rank > 0)
        return;
    check_bytes("cifar10-large", (bcop_shape){32, 32, 3},
                9 * 3 * 32 + 16 * 32 * 32 + 9 * 32 * 64 + 16 * 64 * 64 + 4096 * 512 + 512 * 512 +
                    512 * 10 + 32 + 32 + 64 + 64 + 512 + 512 + 10);
    check_bytes("mnist-small", (bcop_shape){28, 28, 1},
                16 * 16 + 16 * 16 * 32 + 1568 * 100 + 100 * 10 + 16 + 32 + 100 + 10);
}

int main(void) {
    if (bcop_comm_open(&comm) != BCOP_OK)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_placement),
        cmocka_unit_test(test_sum_over_images),
        cmocka_unit_test(test_no_more_than_a_plain_all_reduce),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    bcop_comm_close(&comm);
    return failed;
}
