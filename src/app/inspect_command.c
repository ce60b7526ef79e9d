#include "app/arguments.h"
#include "app/command.h"
#include "app/json.h"
#include "app/network.h"
#include "base/log.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct arguments {
    const char *checkpoint;
    bool verify, json;
} arguments;

typedef struct findings {
    double lipschitz, *bound, *defect; /* [layers] */
} findings;

static long parameter_count(const bcop_layer *layer) {
    long count = 0;
    for (int p = 0; p < layer->parameters; p++)
        count += bcop_parameter_size(&layer->parameter[p]);
    return count;
}

static double worst_defect(const bcop_layer *layer) {
    double worst = 0;
    for (int p = 0; p < layer->parameters; p++)
        if (layer->parameter[p].orthonormal)
            worst =
                fmax(worst, bcop_stage_defect(layer->parameter[p].rows, layer->parameter[p].cols,
                                              layer->parameter[p].value));
    return worst;
}

static json_t *shape_json(bcop_shape s) {
    return json_pack("[i, i, i]", s.height, s.width, s.channels);
}

static bcop_status print_json(const bcop_network *n, const findings *f) {
    json_t *layers = json_array();
    for (int i = 0; i < n->model->count; i++) {
        const bcop_layer *layer = &n->model->layer[i];
        json_array_append_new(layers,
                              json_pack("{s:i, s:s, s:o, s:o, s:I, s:f, s:f}", "index", i, "kind",
                                        layer->kind->name, "in", shape_json(layer->in), "out",
                                        shape_json(layer->out), "parameters",
                                        (json_int_t)parameter_count(layer), "defect", f->defect[i],
                                        "lipschitz", f->bound[i]));
    }
    char *config = bcop_experiment_text(&n->experiment);
    json_t *out =
        json_pack("{s:I, s:s, s:o, s:f, s:f, s:o}", "step", (json_int_t)n->snapshot.progress.step,
                  "config", config ? config : "", "layers", layers, "lipschitz", f->lipschitz,
                  "input_scale", bcop_model_input_scale(n->model), "hashes_ok",
                  n->snapshot.has_manifest ? json_true() : json_null());
    free(config);
    return bcop_json_print(out);
}

static void print_text(const bcop_network *n, const findings *f) {
    const bcop_snapshot *s = &n->snapshot;
    bcop_log_info("%s: step %ld, epoch %ld, written %s by %s (format %ld)", s->folder,
                  s->progress.step, s->progress.epoch, s->created, s->software, s->version);
    bcop_log_info(
        "layer            in              out             parameters  defect    Lipschitz bound");
    for (int i = 0; i < n->model->count; i++) {
        const bcop_layer *l = &n->model->layer[i];
        char in[48], out[48];
        snprintf(in, sizeof in, "%dx%dx%d", l->in.height, l->in.width, l->in.channels);
        snprintf(out, sizeof out, "%dx%dx%d", l->out.height, l->out.width, l->out.channels);
        bcop_log_info("%-16s %-15s %-15s %10ld  %.2e  %.9f", l->name, in, out, parameter_count(l),
                      f->defect[i], f->bound[i]);
    }
    bcop_log_info("input scale %g, Lipschitz bound in pixel units %.9f",
                  bcop_model_input_scale(n->model), f->lipschitz);
    bcop_log_info(s->has_manifest ? "hashes agree with the manifest"
                                  : "no manifest beside it: nothing to verify it by");
}

static bcop_status examine(bcop_network *n, const arguments *a, const bcop_comm *comm) {
    findings f = {.bound = calloc(2 * (size_t)n->model->count, sizeof *f.bound)};
    bcop_status status = BCOP_OK;
    if (!f.bound)
        status = bcop_status_fail(BCOP_INTERNAL, "out of memory");
    status = bcop_comm_agree(comm, status);
    if (status != BCOP_OK) {
        free(f.bound);
        return status;
    }
    f.defect = f.bound + n->model->count;
    f.lipschitz = bcop_model_bound(n->model, f.bound); /* of the stored operators */
    status = bcop_network_check_bound(f.lipschitz);
    if (status == BCOP_OK)
        status = bcop_checkpoint_load(&n->checkpoint, &n->snapshot,
                                      BCOP_PART_BLOCK | (a->verify ? BCOP_PART_OPTIMIZER : 0u));
    for (int i = 0; status == BCOP_OK && i < n->model->count; i++)
        f.defect[i] = worst_defect(&n->model->layer[i]);
    if (status == BCOP_OK && a->verify)
        status = bcop_comm_agree(comm, bcop_network_compare(n));
    if (status == BCOP_OK && comm->rank == 0) {
        if (a->json)
            status = print_json(n, &f);
        else
            print_text(n, &f);
        if (a->verify)
            bcop_log_info("verified: hashes, and every operator from its blocks to 1e-5");
    }
    free(f.bound);
    return status;
}

static bcop_status run_on(const bcop_comm *comm, const arguments *a) {
    bcop_network n;
    BCOP_TRY(bcop_network_open(comm, a->checkpoint, NULL, NULL, &n));
    bcop_status status = BCOP_OK;
    if (a->verify && !n.snapshot.has_manifest)
        status = bcop_status_fail(BCOP_BAD_DATA, "%s: has no %s to verify by", n.snapshot.folder,
                                  BCOP_MANIFEST_NAME);
    if (status == BCOP_OK)
        status = examine(&n, a, comm);
    bcop_network_close(&n);
    return status;
}

static bcop_status run(const bcop_comm *comm, int argc, char **argv) {
    arguments a = {0};
    const bcop_argument options[] = {
        {"--verify", NULL, &a.verify, NULL}, {"--json", NULL, &a.json, NULL}, {0}};
    bcop_status status = bcop_arguments_read(argc, argv, options, "CHECKPOINT", &a.checkpoint);
    return status == BCOP_OK ? run_on(comm, &a) : status;
}

const bcop_command bcop_command_inspect = {
    .name = "inspect",
    .usage = "CHECKPOINT [--verify] [--json]",
    .help = "layers, shapes, orthogonality, Lipschitz bound and provenance of a checkpoint",
    .run = run,
    .uses_mpi = true,
};
