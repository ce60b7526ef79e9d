/* run: ranks 1 2 3 */
/* A worker: the memory and the traffic that are planned are those of the real one, also when the
 * ranks are only imagined, and a step that fails leaves nothing changed or on its way. */
#include "train/worker.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { LANES = 8, BATCH = 16 };

/* Gradients go all ways, and the first two dense layers' blocks have several panels. */
static const char text[] =
    "name: worker\n"
    "data: {kind: synthetic, classes: 4, count: 64, test_count: 20, holdout: 16}\n"
    "model:\n"
    "  - conv: {channels: 8, kernel: 4, stride: 2}\n"
    "  - maxmin\n"
    "  - dense: {units: 48}\n"
    "  - maxmin\n"
    "  - dense: {units: 600}\n"
    "  - maxmin\n"
    "  - dense: {units: 10}\n"
    "  - maxmin\n"
    "  - dense: {units: 4}\n"
    "loss: {kind: cross_entropy}\n"
    "optimizer: {kind: muon, lr: 0.03}\n"
    "train: {batch: 16, lanes: 8, epochs: 1}\n";

static const char *const placements[] = {"auto", "replicated", "owned", "shared"};

static bcop_comm comm;

static void check(bcop_status status) {
    if (status != BCOP_OK)
        fail_msg("%s", bcop_status_message());
}

typedef struct rig {
    bcop_experiment experiment;
    bcop_worker_data data;
    bcop_worker worker;
    float *x; /* of this rank */
    int label[BATCH];
} rig;

static void read_experiment(const char *placement, bcop_experiment *e) {
    char assignment[64];
    bcop_config *config;
    check(bcop_config_parse(text, strlen(text), "test", &config));
    snprintf(assignment, sizeof assignment, "ortho.placement=%s", placement);
    check(bcop_config_set(config, assignment));
    check(bcop_experiment_read(config, e));
}

static void read_images(rig *r) {
    const bcop_dataset *set = r->data.split[BCOP_SPLIT_TRAIN];
    const int *row = r->worker.exchange.row;
    const long size = bcop_shape_size(bcop_dataset_shape(set));
    r->x = malloc(BATCH * (size_t)size * sizeof *r->x);
    assert_non_null(r->x);
    for (int i = 0; row[comm.rank] + i < row[comm.rank + 1]; i++) {
        bcop_dataset_read(set, row[comm.rank] + i, r->x + i * size);
        r->label[i] = bcop_dataset_label(set, row[comm.rank] + i);
    }
}

static void rig_open(rig *r, const char *placement) {
    *r = (rig){0};
    read_experiment(placement, &r->experiment);
    check(bcop_worker_open_data(&r->experiment, &r->data));
    check(bcop_worker_open(&r->worker, &comm, &r->experiment, &r->data));
    check(bcop_worker_reserve(&r->worker));
    check(bcop_stage_initialise(&r->worker.stage, 3));
    bcop_model_build(r->worker.model);
    read_images(r);
}

static void rig_close(rig *r) {
    bcop_worker_close(&r->worker);
    bcop_worker_close_data(&r->data);
    bcop_experiment_free(&r->experiment);
    free(r->x);
}

static size_t sum_of_classes(const bcop_worker *w) {
    size_t sum = 0;
    for (int i = 0; i < BCOP_MEMORIES; i++)
        sum += w->memory[i];
    return sum;
}

static void test_imagined_memory_is_the_real_one(void **state) {
    (void)state;
    for (int p = 0; p < 4; p++) {
        rig r;
        rig_open(&r, placements[p]);
        const bcop_comm imagined = bcop_comm_imagined(comm.rank, comm.size);
        bcop_worker w;
        check(bcop_worker_open(&w, &imagined, &r.experiment, &r.data));
        assert_int_equal(w.arena.used + w.arena.most, r.worker.arena.size);
        assert_int_equal(sum_of_classes(&w), w.arena.used + w.arena.most);
        for (int i = 0; i < BCOP_MEMORIES; i++) {
            assert_true(w.memory[i] > 0);
            assert_int_equal(w.memory[i], r.worker.memory[i]);
            assert_true(strlen(bcop_worker_memory((bcop_memory)i)) > 0);
        }
        const bcop_traffic real = bcop_worker_count(&r.worker, 2), same = bcop_worker_count(&w, 2);
        assert_memory_equal(&real, &same, sizeof real);
        bcop_worker_close(&w);
        rig_close(&r);
    }
}

/* Every rank of a larger job can be planned here; more ranks than lanes are an error. */
static void test_larger_jobs(void **state) {
    (void)state;
    rig r;
    rig_open(&r, "auto");
    size_t alone = 0;
    for (int ranks = 1; ranks <= LANES; ranks++)
        for (int rank = 0; rank < ranks; rank++) {
            const bcop_comm imagined = bcop_comm_imagined(rank, ranks);
            bcop_worker w;
            check(bcop_worker_open(&w, &imagined, &r.experiment, &r.data));
            assert_int_equal(sum_of_classes(&w), w.arena.used + w.arena.most);
            assert_null(w.arena.base);
            if (ranks == 1)
                alone = w.memory[BCOP_MEMORY_STAGE];
            else /* optimizer state divides, parameters stay */
                assert_true(w.memory[BCOP_MEMORY_STAGE] < alone);
            bcop_worker_close(&w);
        }
    const bcop_comm many = bcop_comm_imagined(0, LANES + 1);
    bcop_worker w;
    assert_int_equal(bcop_worker_open(&w, &many, &r.experiment, &r.data), BCOP_CONFIG);
    assert_non_null(strstr(bcop_status_message(), "lanes"));
    bcop_worker_close(&w);
    rig_close(&r);
}

/* Steps so small that no block needs a second iteration. */
static const double tiny = 1e-6;

static void test_counted_traffic(void **state) {
    (void)state;
    for (int p = 0; p < 4; p++) {
        rig r;
        rig_open(&r, placements[p]);
        for (long step = 1; step <= 2; step++) {
            /* in step 1 all others ask for a checkpoint, in step 2 rank 0 */
            bcop_worker_flags flags = {BCOP_OK, (comm.rank == 0) == (step == 2)};
            const bcop_traffic before = bcop_traffic_read();
            check(bcop_worker_step(&r.worker, step, tiny, r.x, r.label, &flags));
            const bcop_traffic after = bcop_traffic_read();
            assert_true(r.worker.iterations <= 1);
            assert_int_equal(flags.stop, BCOP_OK);
            assert_true(flags.save == (step == 2)); /* as rank 0 said */
            const bcop_traffic expected = bcop_worker_count(&r.worker, 1);
            for (int kind = 0; kind < BCOP_TRAFFIC_KINDS; kind++) {
                assert_int_equal(after.messages[kind] - before.messages[kind],
                                 expected.messages[kind]);
                assert_int_equal(after.bytes[kind] - before.bytes[kind], expected.bytes[kind]);
            }
            if (strcmp(placements[p], "shared") == 0 && comm.size > 1 && comm.rank == 0)
                assert_true(expected.bytes[BCOP_TRAFFIC_SUMS] > 0);
        }
        rig_close(&r);
    }
}

/* All values of the model, to be freed. */
static float *values_of(const bcop_model *m, size_t *bytes) {
    long count = 0, at = 0;
    for (int i = 0; i < m->parameters; i++)
        count += bcop_parameter_size(m->parameter[i]);
    *bytes = (size_t)count * sizeof(float);
    float *all = malloc(*bytes);
    assert_non_null(all);
    for (int i = 0; i < m->parameters; i++) {
        const long size = bcop_parameter_size(m->parameter[i]);
        memcpy(all + at, m->parameter[i]->value, (size_t)size * sizeof *all);
        at += size;
    }
    return all;
}

static void check_nothing_on_its_way(const bcop_exchange *x) {
    for (int k = 0; k < x->parts; k++)
        assert_int_equal(x->sums.requests[k], 0);
    for (int i = 0; i < x->factors; i++) {
        assert_int_equal(x->factor[i].left.requests, 0);
        assert_int_equal(x->factor[i].right.requests, 0);
    }
}

/* One rank's images are not numbers: everyone fails, with the parameters as they were; and the step
   done again with good ones gives what it would have given. */
static void test_failed_step(void **state) {
    (void)state;
    rig r, other;
    rig_open(&r, "auto");
    rig_open(&other, "auto");
    const float first = r.x[0];
    size_t bytes;
    bcop_worker_flags flags = {comm.rank == comm.size - 1 ? BCOP_INTERRUPTED : BCOP_OK, false};
    float *before = values_of(r.worker.model, &bytes);
    if (comm.rank == comm.size - 1)
        r.x[0] = NAN;
    assert_int_equal(bcop_worker_step(&r.worker, 1, 1, r.x, r.label, &flags), BCOP_DIVERGED);
    assert_int_equal(flags.stop, BCOP_INTERRUPTED);
    check_nothing_on_its_way(&r.worker.exchange);
    float *after = values_of(r.worker.model, &bytes);
    assert_memory_equal(before, after, bytes);
    free(after);
    r.x[0] = first;
    flags = (bcop_worker_flags){0};
    check(bcop_worker_step(&r.worker, 1, 1, r.x, r.label, &flags));
    check(bcop_worker_step(&other.worker, 1, 1, other.x, other.label, &flags));
    after = values_of(r.worker.model, &bytes);
    float *expected = values_of(other.worker.model, &bytes);
    assert_memory_equal(after, expected, bytes);
    assert_memory_not_equal(after, before, bytes);
    free(before);
    free(after);
    free(expected);
    rig_close(&r);
    rig_close(&other);
}

int main(void) {
    if (bcop_comm_open(&comm) != BCOP_OK)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_imagined_memory_is_the_real_one),
        cmocka_unit_test(test_larger_jobs),
        cmocka_unit_test(test_counted_traffic),
        cmocka_unit_test(test_failed_step),
    };
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    bcop_comm_close(&comm);
    return failed;
}
