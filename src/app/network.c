#include "app/network.h"

#include "train/rundir.h"
#include "train/samedata.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Replaces the place of the data: the folder, or for kinds that name files the split's file. */
static bcop_status replace_data(bcop_experiment *e, bcop_split split, const char *data) {
    const char *key = split == BCOP_SPLIT_TEST ? "test" : "train";
    const bcop_set_kind *kind = bcop_set_kinds[e->data.kind];
    if (strlen(data) >= BCOP_TEXT_MAX)
        return bcop_status_fail(BCOP_USAGE, "--data: the path is too long");
    for (const bcop_option *o = kind->options; o->key; o++)
        if (o->type == BCOP_OPTION_TEXT &&
            (strcmp(o->key, "dir") == 0 || strcmp(o->key, key) == 0)) {
            strcpy((char *)e->data_options + o->offset, data);
            return BCOP_OK;
        }
    return bcop_status_fail(BCOP_USAGE, "--data: %s data is not in files", kind->name);
}

/* What the network is to be evaluated on; all NULL: nothing. */
typedef struct source {
    const char *split, *data; /* a split of the experiment's data, perhaps in another place */
    const char *file;         /* or images in a file */
} source;

static bcop_status open_split(bcop_network *n, const source *from) {
    bcop_experiment *e = &n->experiment;
    BCOP_TRY(bcop_dataset_split_parse(from->split, &n->split));
    if (from->data)
        BCOP_TRY(replace_data(e, n->split, from->data));
    BCOP_TRY(bcop_dataset_open(&e->data, e->data_options, n->split, &n->dataset));
    if (bcop_dataset_count(n->dataset) == 0)
        return bcop_status_fail(BCOP_NO_INPUT, "the %s split is empty", from->split);
    return BCOP_OK;
}

static bcop_status open_data(bcop_network *n, const source *from) {
    if (from->file)
        BCOP_TRY(bcop_dataset_open_images(from->file, &n->dataset));
    else
        BCOP_TRY(open_split(n, from));
    const bcop_shape has = bcop_dataset_shape(n->dataset), in = n->snapshot.in;
    const int classes = bcop_dataset_classes(n->dataset);
    if (!bcop_shape_equal(has, in) || classes > n->snapshot.classes)
        return bcop_status_fail(
            BCOP_BAD_DATA,
            "%s%s has %dx%dx%d images of %d classes, the network is for %dx%dx%d and %d classes",
            from->file ? from->file : from->split, from->file ? "" : " split", has.height,
            has.width, has.channels, classes, in.height, in.width, in.channels,
            n->snapshot.classes);
    return BCOP_OK;
}

static void plan(bcop_network *n, const bcop_comm *comm) {
    const bcop_experiment *e = &n->experiment;
    const int run = e->train.batch / e->train.lanes;
    bcop_model_plan(n->model, run, bcop_model_group(run, INT_MAX), false, &n->arena);
    if (!n->dataset) { /* to look at the whole state, with the optimizer's */
        bcop_stage_plan(&n->stage, &n->arena);
        bcop_checkpoint_plan(&n->checkpoint, comm, n->model, &n->stage, &n->arena);
        return;
    }
    bcop_checkpoint_plan(&n->checkpoint, comm, n->model, NULL, &n->arena);
    n->evaluator = (bcop_evaluator){.comm = comm,
                                    .model = n->model,
                                    .dataset = n->dataset,
                                    .loss = bcop_experiment_loss(e),
                                    .loss_options = e->loss_options};
    bcop_evaluate_plan(&n->evaluator, &n->arena);
    n->certifier = (bcop_certifier){.comm = comm, .model = n->model, .dataset = n->dataset};
    bcop_certify_plan(&n->certifier, &n->arena);
}

static bcop_status build(bcop_network *n, const bcop_comm *comm, const source *from) {
    const bcop_experiment *e = &n->experiment;
    if (from->split || from->file)
        BCOP_TRY(open_data(n, from));
    const bcop_status status =
        bcop_model_create(e->model_node, e->input_node, &e->input.mean, &e->input.std,
                          n->snapshot.in, n->snapshot.classes, 0, &n->model);
    if (status == BCOP_CONFIG) /* the configuration in a file is data */
        return bcop_status_fail(BCOP_BAD_DATA, "%s", bcop_status_message());
    BCOP_TRY(status);
    if (!n->dataset) {
        const bcop_stage_rule rule = {.optimizer = bcop_experiment_optimizer(e),
                                      .optimizer_options = e->optimizer_options,
                                      .placement = {.wanted = BCOP_PLACEMENT_REPLICATED}};
        BCOP_TRY(bcop_stage_open(&n->stage, &bcop_comm_alone, rule, n->model->parameters,
                                 n->model->parameter));
    }
    n->arena.name = "evaluation";
    n->arena.apart = true; /* what the file holds is looked at after the bounds are computed */
    plan(n, comm);
    BCOP_TRY(bcop_arena_reserve(&n->arena));
    plan(n, comm);
    return BCOP_OK;
}

static bcop_status open_on(const bcop_comm *comm, const char *checkpoint, const source *from,
                           bcop_network *n) {
    *n = (bcop_network){0};
    char folder[BCOP_PATH_MAX] = "";
    BCOP_TRY(
        bcop_comm_agree(comm, comm->rank == 0 ? bcop_rundir_resolve(checkpoint, folder) : BCOP_OK));
    bcop_comm_broadcast(comm, folder, sizeof folder, 0);
    BCOP_TRY(bcop_checkpoint_open(comm, folder, &n->snapshot, &n->experiment));
    bcop_status status = bcop_comm_agree(comm, build(n, comm, from));
    if (status == BCOP_OK && n->dataset)
        status = bcop_samedata_check(comm, n->dataset, n->split);
    if (status == BCOP_OK)
        status =
            bcop_checkpoint_load(&n->checkpoint, &n->snapshot, BCOP_PART_OPERATOR | BCOP_PART_BIAS);
    if (status != BCOP_OK)
        bcop_network_close(n);
    return status;
}

bcop_status bcop_network_open(const bcop_comm *comm, const char *checkpoint, const char *split,
                              const char *data, bcop_network *n) {
    return open_on(comm, checkpoint, &(source){.split = split, .data = data}, n);
}

bcop_status bcop_network_open_images(const bcop_comm *comm, const char *checkpoint,
                                     const char *file, bcop_network *n) {
    return open_on(comm, checkpoint, &(source){.file = file}, n);
}

void bcop_network_close(bcop_network *n) {
    bcop_stage_close(&n->stage);
    bcop_model_free(n->model);
    bcop_dataset_close(n->dataset);
    bcop_arena_free(&n->arena);
    bcop_experiment_free(&n->experiment);
    bcop_checkpoint_close(&n->snapshot);
}

static bcop_status compare_operator(bcop_layer *layer, const float *stored) {
    const long size = bcop_layer_stored_count(layer);
    float *again = malloc((size_t)size * sizeof *again + 1);
    if (!again)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory for %s", layer->name);
    layer->kind->store(layer, again);
    double worst = 0;
    for (long k = 0; k < size; k++) {
        const double apart = fabs((double)again[k] - (double)stored[k]);
        if (!isnan(worst) && !(apart <= worst)) /* a NaN too, and it stays */
            worst = apart;
    }
    free(again);
    layer->kind->load(layer, stored);
    if (worst <= 1e-5)
        return BCOP_OK;
    return bcop_status_fail(BCOP_BAD_DATA, "%s: the stored %s differs from its blocks by %g",
                            layer->name, layer->kind->stored_name, worst);
}

bcop_status bcop_network_compare(bcop_network *n) {
    bcop_model_build(n->model);
    for (int i = 0; i < n->model->count; i++)
        if (n->model->layer[i].kind->store)
            BCOP_TRY(compare_operator(&n->model->layer[i], n->checkpoint.stored[i]));
    return BCOP_OK;
}

bcop_status bcop_network_check_bound(double lipschitz) {
    if (!isfinite(lipschitz))
        return bcop_status_fail(BCOP_BAD_DATA, "the network's Lipschitz bound is not finite");
    return BCOP_OK;
}
