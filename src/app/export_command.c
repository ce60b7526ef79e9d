#include "app/arguments.h"
#include "app/command.h"
#include "app/network.h"
#include "base/log.h"
#include "ckpt/safetensors.h"
#include "train/export_torch.h"
#include "train/rundir.h"

#include <errno.h>
#include <fcntl.h>
#include <float.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ATTRIBUTES = 16, OWN_FIELDS = 3 };

/* The tables of an exported file; what is owned stands at the end. */
typedef struct tables {
    int attributes, fields;
    bcop_attribute attribute[ATTRIBUTES];
    bcop_field *field;
    char *config;
} tables;

/* ---- what is written ---- */

static bcop_attribute *attribute(tables *t, const char *name, bcop_attribute_type type) {
    bcop_attribute *a = &t->attribute[t->attributes++];
    *a = (bcop_attribute){.group = "/", .type = type};
    snprintf(a->name, sizeof a->name, "%s", name);
    return a;
}

static void put_text(tables *t, const char *name, const char *value) {
    attribute(t, name, BCOP_ATTRIBUTE_TEXT)->text = value;
}

static void put_long(tables *t, const char *name, long value) {
    attribute(t, name, BCOP_ATTRIBUTE_LONG)->integer = value;
}

static void fill_attributes(tables *t, const bcop_network *n, double lipschitz) {
    const bcop_snapshot *s = &n->snapshot;
    put_text(t, "format", "bcop-export"); /* the first: it replaces that of checkpoints */
    put_long(t, "version", 1);
    put_text(t, "name", n->experiment.root.name);
    put_long(t, "step", s->progress.step);
    put_long(t, "epoch", s->progress.epoch);
    put_text(t, "created", s->created);
    put_text(t, "software", s->software);
    put_long(t, "input_height", s->in.height);
    put_long(t, "input_width", s->in.width);
    put_long(t, "input_channels", s->in.channels);
    put_long(t, "classes", s->classes);
    attribute(t, "lipschitz", BCOP_ATTRIBUTE_REAL)->real = lipschitz;
    attribute(t, "input_scale", BCOP_ATTRIBUTE_REAL)->real = bcop_model_input_scale(n->model);
    put_text(t, "config", t->config);
}

static void put_field(tables *t, const char *path, bcop_field_type type, long rows, long cols,
                      void *data, const char *unit, const char *help) {
    bcop_field *f = &t->field[t->fields++];
    *f = (bcop_field){.type = type,
                      .dimensions = cols ? 2 : 1,
                      .size = {rows, cols},
                      .data = data,
                      .unit = unit,
                      .help = help};
    snprintf(f->path, sizeof f->path, "%s", path);
}

static void fill_fields(tables *t, const bcop_network *n, double *pair) {
    const bcop_model *m = n->model;
    const int channels = m->in.channels, classes = m->classes;
    put_field(t, "/input/mean", BCOP_FIELD_FLOAT, channels, 0, m->mean, "pixel units",
              "subtracted from every channel");
    put_field(t, "/input/inverse_std", BCOP_FIELD_FLOAT, channels, 0, m->inverse_std,
              "1/pixel units", "what it is multiplied by then");
    put_field(t, "/certificate/pair", BCOP_FIELD_DOUBLE, classes, classes, pair, "1/pixel units",
              "proven Lipschitz bounds of z_i - z_j, i != j");
    for (int i = 0; i < n->checkpoint.count; i++)
        if (n->checkpoint.part[i] == BCOP_PART_OPERATOR || n->checkpoint.part[i] == BCOP_PART_BIAS)
            t->field[t->fields++] = n->checkpoint.field[i];
}

static bcop_status make_tables(const bcop_network *n, const bcop_certificate *c, tables *t) {
    *t = (tables){.config = bcop_experiment_text(&n->experiment)};
    t->field = calloc((size_t)n->checkpoint.count + OWN_FIELDS, sizeof *t->field);
    if (!t->config || !t->field)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory for the export");
    fill_attributes(t, n, c->lipschitz);
    fill_fields(t, n, c->pair);
    return BCOP_OK;
}

static void free_tables(tables *t) {
    free(t->config);
    free(t->field);
}

/* ---- where ---- */

typedef struct place {
    char file[BCOP_PATH_MAX], python[BCOP_PATH_MAX];
    bool hdf5;
} place;

static bcop_status read_place(const char *out, place *p) {
    const char *slash = strrchr(out, '/'), *dot = strrchr(out, '.');
    const char *base = slash ? slash + 1 : out;
    if (!dot || dot <= base || (strcmp(dot, ".safetensors") != 0 && strcmp(dot, ".h5") != 0))
        return bcop_status_fail(BCOP_USAGE, "%s: must end with .safetensors or .h5", out);
    if (strlen(out) >= BCOP_PATH_MAX)
        return bcop_status_fail(BCOP_USAGE, "%s: the path is too long", out);
    *p = (place){.hdf5 = strcmp(dot, ".h5") == 0};
    strcpy(p->file, out);
    snprintf(p->python, sizeof p->python, "%.*s.py", (int)(dot - out), out);
    return BCOP_OK;
}

/* Nothing that a user made is overwritten. */
static bcop_status check_free(const char *path) {
    if (access(path, F_OK) == 0)
        return bcop_status_fail(BCOP_CANNOT_CREATE, "%s: exists already", path);
    return BCOP_OK;
}

static bcop_status write_python(const bcop_network *n, const place *p) {
    const char *slash = strrchr(p->file, '/');
    char origin[256];
    snprintf(origin, sizeof origin, "Step %ld, epoch %ld, written %s by %s.",
             n->snapshot.progress.step, n->snapshot.progress.epoch, n->snapshot.created,
             n->snapshot.software);
    const bcop_export_torch what = {.model = n->model,
                                    .name = n->experiment.root.name,
                                    .origin = origin,
                                    .file = slash ? slash + 1 : p->file,
                                    .hdf5 = p->hdf5};
    FILE *out = fopen(p->python, "wx");
    if (!out)
        return bcop_status_create(p->python);
    bcop_export_torch_write(&what, out);
    const bool failed = ferror(out);
    if (fclose(out) != 0 || failed) {
        const bcop_status status = bcop_status_errno(BCOP_IO, "%s", p->python);
        unlink(p->python);
        return status;
    }
    return BCOP_OK;
}

static bcop_status write_files(const bcop_network *n, const bcop_comm *comm, const place *p,
                               const tables *t) {
    bcop_status status = BCOP_OK;
    if (comm->rank == 0)
        status = check_free(p->file);
    if (comm->rank == 0 && status == BCOP_OK)
        status = write_python(n, p);
    BCOP_TRY(bcop_comm_agree(comm, status));
    if (p->hdf5)
        status =
            bcop_store_write(comm, p->file, t->attributes, t->attribute, t->fields, t->field, NULL);
    else if (comm->rank == 0)
        status = bcop_safetensors_write(p->file, t->attributes, t->attribute, t->fields, t->field);
    status = bcop_comm_agree(comm, status);
    if (status != BCOP_OK && comm->rank == 0)
        unlink(p->python);
    return status;
}

static bcop_status export(const bcop_network *n, const bcop_comm *comm, const place *p,
                          bcop_certificate *certificate) {
    bcop_certificate_prepare(certificate);
    BCOP_TRY(bcop_network_check_bound(certificate->lipschitz));
    BCOP_TRY(bcop_export_torch_check(n->model));
    tables t;
    bcop_status status = bcop_comm_agree(comm, make_tables(n, certificate, &t));
    if (status == BCOP_OK)
        status = write_files(n, comm, p, &t);
    free_tables(&t);
    if (status == BCOP_OK)
        bcop_log_info("%s (step %ld): weights in %s, loader for PyTorch in %s", n->snapshot.folder,
                      n->snapshot.progress.step, p->file, p->python);
    return status;
}

static bcop_status export_certified(const bcop_network *n, const bcop_comm *comm, const place *p) {
    bcop_arena arena = {.name = "certificate"};
    bcop_certificate certificate;
    bcop_certificate_plan(&certificate, n->model, 1, &arena);
    bcop_status status = bcop_comm_agree(comm, bcop_arena_reserve(&arena));
    BCOP_TRY(status);
    bcop_certificate_plan(&certificate, n->model, 1, &arena);
    status = export(n, comm, p, &certificate);
    bcop_arena_free(&arena);
    return status;
}

static bcop_status run(const bcop_comm *comm, int argc, char **argv) {
    const char *operand[2];
    const bcop_argument options[] = {{0}};
    const char *const what[] = {"CHECKPOINT", "new file OUT.safetensors or OUT.h5"};
    int count;
    BCOP_TRY(bcop_arguments_read_list(argc, argv, options, 2, what, 2, operand, &count));
    place p;
    BCOP_TRY(read_place(operand[1], &p));
    bcop_network n;
    BCOP_TRY(bcop_network_open(comm, operand[0], NULL, NULL, &n));
    const bcop_status status = export_certified(&n, comm, &p);
    bcop_network_close(&n);
    return status;
}

const bcop_command bcop_command_export = {
    .name = "export",
    .usage = "CHECKPOINT OUT.{safetensors,h5}",
    .help = "plain weights, constant and normalisation, with OUT.py, a loader for PyTorch",
    .run = run,
    .uses_mpi = true,
};
