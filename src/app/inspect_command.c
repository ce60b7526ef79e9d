#include "app/arguments.h"
#include "app/command.h"
#include "app/json.h"
#include "app/network.h"
#include "app/provenance.h"
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
    double *block;                     /* [parameters]: defects of the blocks */
} findings;

static long parameter_count(const bcop_layer *layer) {
    long count = 0;
    for (int p = 0; p < layer->parameters; p++)
        count += bcop_parameter_size(&layer->parameter[p]);
    return count;
}

static double defect_of(const bcop_parameter *p) {
    return p->orthonormal ? bcop_stage_defect(p->rows, p->cols, p->value) : 0;
}

/* The defects of a layer's blocks; returns the largest. */
static double fill_defects(const bcop_layer *layer, double *defect) {
    double worst = 0;
    for (int p = 0; p < layer->parameters; p++) {
        defect[p] = defect_of(&layer->parameter[p]);
        worst = fmax(worst, defect[p]);
    }
    return worst;
}

/* Where a layer's begin. */
static double *blocks_of(const bcop_model *m, const findings *f, int layer) {
    double *at = f->block;
    for (int i = 0; i < layer; i++)
        at += m->layer[i].parameters;
    return at;
}

static void free_findings(findings *f) {
    free(f->bound);
    free(f->block);
}

/* "H", "P1", "bias": what follows the last slash of a parameter's name. */
static const char *short_name(const bcop_parameter *p) {
    const char *slash = strrchr(p->name, '/');
    return slash ? slash + 1 : p->name;
}

static json_t *shape_json(bcop_shape s) {
    return json_pack("[i, i, i]", s.height, s.width, s.channels);
}

static json_t *blocks_json(const bcop_layer *layer, const double *defect) {
    json_t *blocks = json_array();
    for (int p = 0; p < layer->parameters; p++) {
        const bcop_parameter *block = &layer->parameter[p];
        if (block->orthonormal)
            json_array_append_new(blocks,
                                  json_pack("{s:s, s:i, s:i, s:o}", "name", short_name(block),
                                            "rows", block->rows, "cols", block->cols, "defect",
                                            bcop_json_real(defect[p])));
    }
    return blocks;
}

static json_t *layers_json(const bcop_network *n, const findings *f) {
    json_t *layers = json_array();
    for (int i = 0; i < n->model->count; i++) {
        const bcop_layer *layer = &n->model->layer[i];
        json_array_append_new(layers,
                              json_pack("{s:i, s:s, s:o, s:o, s:I, s:o, s:f, s:o}", "index", i,
                                        "kind", layer->kind->name, "in", shape_json(layer->in),
                                        "out", shape_json(layer->out), "parameters",
                                        (json_int_t)parameter_count(layer), "defect",
                                        bcop_json_real(f->defect[i]), "lipschitz", f->bound[i],
                                        "blocks", blocks_json(layer, blocks_of(n->model, f, i))));
    }
    return layers;
}

static bcop_status print_json(const bcop_network *n, const findings *f) {
    const bcop_snapshot *s = &n->snapshot;
    char *config = bcop_experiment_text(&n->experiment);
    json_t *out = json_pack(
        "{s:I, s:s, s:o, s:f, s:f, s:o, s:s, s:I, s:s, s:s, s:I, s:o, s:o}", "step",
        (json_int_t)s->progress.step, "config", config ? config : "", "layers", layers_json(n, f),
        "lipschitz", f->lipschitz, "input_scale", bcop_model_input_scale(n->model), "hashes_ok",
        s->has_manifest ? json_true() : json_null(), "checkpoint", s->folder, "epoch",
        (json_int_t)s->progress.epoch, "created", s->created, "software", s->software, "version",
        (json_int_t)s->version, "provenance", bcop_provenance_json(s), "hashes",
        bcop_provenance_hashes(s));
    free(config);
    return bcop_json_print(out);
}

/* "H 64x12, P1-Q2 64x32": runs of blocks of one shape by their first and last, but the first block
   always alone. */
static void blocks_text(const bcop_layer *layer, size_t size, char *text) {
    size_t at = 0;
    text[0] = 0;
    for (int p = 0; p < layer->parameters;) {
        const bcop_parameter *first = &layer->parameter[p];
        int last = p;
        while (p > 0 && last + 1 < layer->parameters && layer->parameter[last + 1].orthonormal &&
               layer->parameter[last + 1].rows == first->rows &&
               layer->parameter[last + 1].cols == first->cols)
            last++;
        if (first->orthonormal && at < size)
            at += (size_t)snprintf(text + at, size - at, "%s%s%s%s %dx%d", at ? ", " : "",
                                   short_name(first), last > p ? "-" : "",
                                   last > p ? short_name(&layer->parameter[last]) : "", first->rows,
                                   first->cols);
        p = last + 1;
    }
}

static void print_provenance(const bcop_network *n) {
    const bcop_snapshot *s = &n->snapshot;
    const bcop_experiment *e = &n->experiment;
    bcop_log_info("%s: step %ld, epoch %ld, written %s by %s (format %ld)", s->folder,
                  s->progress.step, s->progress.epoch, s->created, s->software, s->version);
    bcop_log_info("trained as %s, seed %ld: %s data, %s loss, %s, batch %d", e->root.name,
                  e->root.seed, bcop_set_kinds[e->data.kind]->name, bcop_experiment_loss(e)->name,
                  bcop_experiment_optimizer(e)->name, e->train.batch);
    if (s->progress.best_step >= 0)
        bcop_log_info("best so far: step %ld, hold-out certified %.2f%%, clean %.2f%%",
                      s->progress.best_step, 100 * s->progress.best_certified,
                      100 * s->progress.best_clean);
}

static void print_layers(const bcop_network *n, const findings *f) {
    long total = 0;
    double worst = 0;
    bcop_log_info("%-14s %-12s %-12s %10s  %-8s  %-15s  %s", "layer", "in", "out", "parameters",
                  "defect", "Lipschitz bound", "blocks");
    for (int i = 0; i < n->model->count; i++) {
        const bcop_layer *l = &n->model->layer[i];
        char in[48], out[48], blocks[256], defect[16] = "-";
        snprintf(in, sizeof in, "%dx%dx%d", l->in.height, l->in.width, l->in.channels);
        snprintf(out, sizeof out, "%dx%dx%d", l->out.height, l->out.width, l->out.channels);
        blocks_text(l, sizeof blocks, blocks);
        if (blocks[0])
            snprintf(defect, sizeof defect, "%.1e", f->defect[i]);
        bcop_log_info("%-14s %-12s %-12s %10ld  %-8s  %-15.9f  %s", l->name, in, out,
                      parameter_count(l), defect, bcop_rounding_up(f->bound[i], 9), blocks);
        total += parameter_count(l);
        worst = fmax(worst, f->defect[i]);
    }
    bcop_log_info("%-40s %10ld  %.1e   %.9f", "all", total, worst,
                  bcop_rounding_up(f->lipschitz / bcop_model_input_scale(n->model), 9));
}

static void print_text(const bcop_network *n, const findings *f) {
    print_provenance(n);
    print_layers(n, f);
    for (int c = 0; c < n->model->in.channels; c++)
        bcop_log_info("input channel %d: (x - %.9g) * %.9g", c, (double)n->model->mean[c],
                      (double)n->model->inverse_std[c]);
    bcop_log_info("input scale %.9g, Lipschitz bound in pixel units %.9f",
                  bcop_model_input_scale(n->model), bcop_rounding_up(f->lipschitz, 9));
    bcop_provenance_print(&n->snapshot);
}

static bcop_status examine(bcop_network *n, const arguments *a, const bcop_comm *comm) {
    const size_t count = (size_t)n->model->count;
    findings f = {.bound = calloc(2 * count, sizeof *f.bound),
                  .block = calloc((size_t)n->model->parameters + 1, sizeof *f.block)};
    bcop_status status = BCOP_OK;
    if (!f.bound || !f.block)
        status = bcop_status_fail(BCOP_INTERNAL, "out of memory");
    status = bcop_comm_agree(comm, status);
    if (status != BCOP_OK) {
        free_findings(&f);
        return status;
    }
    f.defect = f.bound + n->model->count;
    f.lipschitz = bcop_model_bound(n->model, f.bound); /* of the stored operators */
    status = bcop_network_check_bound(f.lipschitz);
    if (status == BCOP_OK)
        status = bcop_checkpoint_load(&n->checkpoint, &n->snapshot,
                                      BCOP_PART_BLOCK | (a->verify ? BCOP_PART_OPTIMIZER : 0u));
    for (int i = 0; status == BCOP_OK && i < n->model->count; i++)
        f.defect[i] = fill_defects(&n->model->layer[i], blocks_of(n->model, &f, i));
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
    free_findings(&f);
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
