#include "train/checkpoint.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/log.h"
#include "train/rundir.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the field table ---- */

static void add(bcop_checkpoint *c, bcop_checkpoint_part part, bcop_field field) {
    long size = 1;
    for (int d = 0; d < field.dimensions; d++)
        size *= field.size[d];
    if (size == 0)
        return; /* a block without columns has nothing to keep */
    if (c->field) {
        c->field[c->count] = field;
        c->part[c->count] = part;
    }
    c->count++;
}

static void add_operator(bcop_checkpoint *c, const bcop_layer *layer, float *stored) {
    bcop_field field = {.type = BCOP_FIELD_FLOAT,
                        .dimensions = layer->stored_dimensions,
                        .data = stored,
                        .unit = "1",
                        .help = layer->stored_dimensions == 4
                                    ? "kernel [c_out][c_in][k][k] after pixel-unshuffle"
                                    : "weight [out][in]"};
    memcpy(field.size, layer->stored_size, sizeof field.size);
    snprintf(field.path, sizeof field.path, "/layers/%s/%s", layer->name, layer->kind->stored_name);
    add(c, BCOP_PART_OPERATOR, field);
}

static void add_parameter(bcop_checkpoint *c, const bcop_parameter *p) {
    bcop_field field = {.type = BCOP_FIELD_FLOAT,
                        .dimensions = p->orthonormal ? 2 : 1,
                        .size = {p->rows, p->cols},
                        .data = p->value,
                        .unit = "1",
                        .help = p->orthonormal ? "block with orthonormal columns" : "bias"};
    snprintf(field.path, sizeof field.path, "/layers/%s", p->name);
    add(c, p->orthonormal ? BCOP_PART_BLOCK : BCOP_PART_BIAS, field);
}

/* Optimizer state that every rank holds is written from where it is; what is divided over the ranks
   is brought together in memory of the checkpoint's own. */
static void add_slots(bcop_checkpoint *c, int index, bcop_arena *arena) {
    const bcop_stage *stage = c->stage;
    const bcop_parameter *p = stage->parameter[index];
    const bool divided = stage->choice[index].placement != BCOP_PLACEMENT_REPLICATED;
    bcop_slot slot[BCOP_SLOTS_MAX];
    const int slots = stage->rule.optimizer->slots(p->orthonormal, slot);
    for (int s = 0; s < slots; s++) {
        bcop_field field = {.type = BCOP_FIELD_FLOAT,
                            .dimensions = 2,
                            .size = {slot[s].single ? 1 : p->rows, slot[s].single ? 1 : p->cols},
                            .unit = "1",
                            .help = "optimizer state"};
        if (divided)
            field.data = bcop_arena_floats(arena, field.size[0] * field.size[1]);
        else if (stage->entry)
            field.data = stage->entry[index].state[s];
        snprintf(field.path, sizeof field.path, "/optimizer/%s/%s", p->name, slot[s].name);
        add(c, BCOP_PART_OPTIMIZER, field);
    }
}

static void fill(bcop_checkpoint *c, bcop_arena *arena) {
    c->count = 0;
    for (int i = 0; i < c->model->count; i++) {
        const bcop_layer *layer = &c->model->layer[i];
        if (layer->kind->stored_name)
            add_operator(c, layer, c->stored ? c->stored[i] : NULL);
        for (int p = 0; p < layer->parameters; p++)
            add_parameter(c, &layer->parameter[p]);
    }
    c->first_slot = c->count;
    for (int i = 0; c->stage && i < c->stage->count; i++)
        if (bcop_parameter_size(c->stage->parameter[i]) > 0)
            add_slots(c, i, arena);
}

/* Between the holders' rows and the whole, for every slot that is divided. Collecting is
   Collective. */
static void move_slots(bcop_checkpoint *c, bool collect) {
    const bcop_stage *stage = c->stage;
    int f = c->first_slot;
    for (int i = 0; stage && i < stage->count; i++) {
        const bcop_stage_entry *e = &stage->entry[i];
        for (int s = 0; s < e->slots && bcop_parameter_size(e->parameter) > 0; s++, f++)
            if (e->offset && collect)
                bcop_stage_collect(stage, e, s, c->field[f].data);
            else if (e->offset)
                bcop_stage_deliver(stage, e, s, c->field[f].data);
    }
}

void bcop_checkpoint_plan(bcop_checkpoint *c, const bcop_comm *comm, bcop_model *model,
                          const bcop_stage *stage, bcop_arena *arena) {
    *c = (bcop_checkpoint){.comm = comm, .model = model, .stage = stage};
    c->stored = bcop_arena_take(arena, model->count, sizeof *c->stored);
    for (int i = 0; i < model->count; i++) {
        float *stored = bcop_arena_floats(arena, bcop_layer_stored_count(&model->layer[i]));
        if (c->stored)
            c->stored[i] = stored;
    }
    int most = model->count + model->parameters;
    if (stage)
        most += stage->count * BCOP_SLOTS_MAX;
    c->field = bcop_arena_take(arena, most, sizeof *c->field);
    c->part = bcop_arena_take(arena, most, sizeof *c->part);
    fill(c, arena);
}

/* ---- attributes ---- */

enum { ATTRIBUTES_MAX = 1024, TEXTS_MAX = 512 };

typedef struct attributes {
    int count, texts;
    bcop_attribute *list;   /* [ATTRIBUTES_MAX] */
    char *owned[TEXTS_MAX]; /* texts to free */
} attributes;

static bcop_attribute *attribute(attributes *a, const char *group, const char *name,
                                 bcop_attribute_type type) {
    bcop_attribute *next = &a->list[a->count < ATTRIBUTES_MAX - 1 ? a->count++ : a->count];
    *next = (bcop_attribute){.type = type};
    snprintf(next->group, sizeof next->group, "%s", group);
    snprintf(next->name, sizeof next->name, "%s", name);
    return next;
}

static void put_long(attributes *a, const char *group, const char *name, long value) {
    attribute(a, group, name, BCOP_ATTRIBUTE_LONG)->integer = value;
}

static void put_real(attributes *a, const char *group, const char *name, double value) {
    attribute(a, group, name, BCOP_ATTRIBUTE_REAL)->real = value;
}

static void put_text(attributes *a, const char *group, const char *name, const char *value) {
    attribute(a, group, name, BCOP_ATTRIBUTE_TEXT)->text = value;
}

/* A layer's options: numbers as numbers, the rest as their YAML text. */
static void put_options(attributes *a, const bcop_layer *layer) {
    char group[64];
    snprintf(group, sizeof group, "/layers/%s", layer->name);
    put_text(a, group, "kind", layer->kind->name);
    for (const bcop_option *o = layer->kind->options; o->key; o++) {
        const char *at = (const char *)layer->options + o->offset;
        if (o->type == BCOP_OPTION_INT)
            put_long(a, group, o->key, *(const int *)(const void *)at);
        else if (o->type == BCOP_OPTION_REAL)
            put_real(a, group, o->key, *(const double *)(const void *)at);
        else if (a->texts < TEXTS_MAX) {
            size_t size;
            char **text = &a->owned[a->texts];
            FILE *out = open_memstream(text, &size);
            if (!out)
                continue;
            bcop_option_write_value(out, o, layer->options);
            fclose(out);
            a->texts++;
            put_text(a, group, o->key, *text);
        }
    }
}

/* Who held what when this was written, for the curious: a run goes on with any placement. */
static void put_placements(attributes *a, const bcop_stage *stage) {
    size_t size;
    FILE *out = a->texts < TEXTS_MAX ? open_memstream(&a->owned[a->texts], &size) : NULL;
    if (!out)
        return;
    for (int i = 0; i < stage->count; i++) {
        const bcop_stage_entry *e = &stage->entry[i];
        fprintf(out, "%s%s: %s", i ? "\n" : "", e->parameter->name,
                bcop_placement_name(e->placement));
        if (e->placement == BCOP_PLACEMENT_OWNED)
            fprintf(out, " by rank %d", e->owner);
    }
    fclose(out);
    put_long(a, "/optimizer", "ranks", stage->comm->size);
    put_text(a, "/optimizer", "placement", a->owned[a->texts++]);
}

static void fill_attributes(attributes *a, const bcop_checkpoint *c, const bcop_experiment *e,
                            const bcop_progress *progress, const char *config,
                            const char *created) {
    put_long(a, "/", "step", progress->step);
    put_long(a, "/", "epoch", progress->epoch);
    put_long(a, "/", "input_height", c->model->in.height);
    put_long(a, "/", "input_width", c->model->in.width);
    put_long(a, "/", "input_channels", c->model->in.channels);
    put_long(a, "/", "classes", c->model->classes);
    put_text(a, "/", "config", config);
    put_text(a, "/", "created", created);
    put_text(a, "/", "software", "bcop " BCOP_VERSION);
    for (int i = 0; i < c->model->count; i++)
        if (c->model->layer[i].parameters)
            put_options(a, &c->model->layer[i]);
    if (c->stage)
        put_placements(a, c->stage);
    put_long(a, "/sampler", "seed", e->root.seed);
    put_long(a, "/sampler", "epoch", progress->epoch);
    put_long(a, "/sampler", "step", progress->step);
    put_long(a, "/history", "best_step", progress->best_step);
    put_real(a, "/history", "best_certified", progress->best_certified);
    put_real(a, "/history", "best_clean", progress->best_clean);
}

static bcop_status check_finite(const char *place, const bcop_field *field, bcop_status code) {
    long size = 1;
    for (int d = 0; d < field->dimensions; d++)
        size *= field->size[d];
    for (long i = 0; i < size; i++)
        if (!isfinite(((const float *)field->data)[i]))
            return bcop_status_fail(code, "%s: %s is not finite", place, field->path);
    return BCOP_OK;
}

/* ---- writing ---- */

/* A state that has diverged must not take the place of a good one. */
static bcop_status check_state(const bcop_checkpoint *c, const bcop_progress *progress) {
    char step[32];
    BCOP_TRY(bcop_fault_at(BCOP_FAULT_CKPT_STATE, NULL));
    snprintf(step, sizeof step, "step %ld", progress->step);
    for (int i = 0; i < c->count; i++)
        BCOP_TRY(check_finite(step, &c->field[i], BCOP_DIVERGED));
    return BCOP_OK;
}

static bcop_status write_state(bcop_checkpoint *c, const bcop_experiment *e, const char *path,
                               const bcop_progress *progress, const char *created) {
    for (int i = 0; i < c->model->count; i++)
        if (c->model->layer[i].kind->store)
            c->model->layer[i].kind->store(&c->model->layer[i], c->stored[i]);
    attributes a = {.list = calloc(ATTRIBUTES_MAX, sizeof *a.list)};
    char *config = bcop_experiment_text(e);
    bcop_status status = check_state(c, progress);
    if (status == BCOP_OK && (!a.list || !config))
        status = bcop_status_fail(BCOP_INTERNAL, "out of memory for the checkpoint");
    if (status == BCOP_OK)
        fill_attributes(&a, c, e, progress, config, created);
    status = bcop_comm_agree(c->comm, status);
    if (status == BCOP_OK)
        status = bcop_store_write(c->comm, path, a.count, a.list, c->count, c->field);
    for (int i = 0; i < a.texts; i++)
        free(a.owned[i]);
    free(a.list);
    free(config);
    return status;
}

static bcop_status write_manifest(const bcop_checkpoint *c, const char *folder, const char *state,
                                  const bcop_progress *progress, const char *created,
                                  uint64_t fingerprint) {
    struct stat info;
    if (stat(state, &info) != 0)
        return bcop_status_errno(BCOP_IO, "%s", state);
    bcop_manifest manifest = {.step = progress->step,
                              .epoch = progress->epoch,
                              .software = "bcop " BCOP_VERSION,
                              .data_fingerprint = fingerprint,
                              .state_bytes = (long)info.st_size,
                              .count = c->count,
                              .entry = calloc((size_t)c->count + 1, sizeof *manifest.entry)};
    if (!manifest.entry)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory for the checkpoint");
    memcpy(manifest.created, created, sizeof manifest.created);
    for (int i = 0; i < c->count; i++) {
        memcpy(manifest.entry[i].path, c->field[i].path, sizeof manifest.entry[i].path);
        manifest.entry[i].hash = bcop_store_hash(&c->field[i]);
    }
    const bcop_status status = bcop_manifest_write(folder, &manifest);
    bcop_manifest_free(&manifest);
    return status;
}

/* Rank 0: from the temporary folder to a committed checkpoint. */
static bcop_status commit(const bcop_checkpoint *c, const char *run, const char *temporary,
                          const char *state, const bcop_progress *progress, const char *created,
                          uint64_t fingerprint) {
    char folder[BCOP_PATH_MAX];
    bcop_rundir_step_path(run, progress->step, "", folder);
    BCOP_TRY(bcop_fault_at(BCOP_FAULT_CKPT_MANIFEST, NULL));
    BCOP_TRY(write_manifest(c, temporary, state, progress, created, fingerprint));
    BCOP_TRY(bcop_fault_at(BCOP_FAULT_CKPT_RENAME, NULL));
    if (rename(temporary, folder) != 0)
        return bcop_status_errno(BCOP_IO, "%s: cannot rename", temporary);
    BCOP_TRY(bcop_fault_at(BCOP_FAULT_CKPT_LINK, NULL));
    BCOP_TRY(bcop_rundir_sync(run));
    return bcop_rundir_link(run, "latest", progress->step);
}

bcop_status bcop_checkpoint_write(bcop_checkpoint *c, const bcop_experiment *e, const char *run,
                                  const bcop_progress *progress, uint64_t fingerprint) {
    move_slots(c, true);
    char temporary[BCOP_PATH_MAX], state[BCOP_PATH_MAX], created[21];
    bcop_rundir_step_path(run, progress->step, ".tmp", temporary);
    bcop_rundir_step_path(run, progress->step, ".tmp/state.h5", state);
    bcop_clock_stamp(created);
    bcop_status status = BCOP_OK;
    if (c->comm->rank == 0 && mkdir(temporary, 0777) != 0)
        status = bcop_status_errno(BCOP_CANNOT_CREATE, "%s", temporary);
    status = bcop_comm_agree(c->comm, status);
    if (status == BCOP_OK)
        status = write_state(c, e, state, progress, created);
    if (status == BCOP_OK) {
        if (c->comm->rank == 0)
            status = commit(c, run, temporary, state, progress, created, fingerprint);
        status = bcop_comm_agree(c->comm, status);
    }
    if (status != BCOP_OK && c->comm->rank == 0)
        bcop_rundir_remove(temporary);
    return status;
}

/* ---- reading ---- */

/* Rank 0 reads the manifest, the others get it. */
static bcop_status open_manifest(const bcop_comm *comm, bcop_snapshot *s) {
    bcop_status status = comm->rank == 0 ? bcop_fault_at(BCOP_FAULT_LOAD_OPEN, NULL) : BCOP_OK;
    if (comm->rank == 0 && status == BCOP_OK) {
        char path[sizeof s->folder + 32];
        snprintf(path, sizeof path, "%s/%s", s->folder, BCOP_MANIFEST_NAME);
        s->has_manifest = access(path, F_OK) == 0;
        if (s->has_manifest)
            status = bcop_manifest_read(s->folder, &s->manifest);
        snprintf(path, sizeof path, "%s/state.h5", s->folder);
        struct stat info;
        if (status == BCOP_OK && s->has_manifest && stat(path, &info) == 0 &&
            info.st_size != s->manifest.state_bytes)
            status = bcop_status_fail(BCOP_BAD_DATA, "%s: has %ld bytes, its manifest says %ld",
                                      path, (long)info.st_size, s->manifest.state_bytes);
    }
    BCOP_TRY(bcop_comm_agree(comm, status));
    bcop_manifest_entry *own = s->manifest.entry;
    bcop_comm_broadcast(comm, &s->has_manifest, sizeof s->has_manifest, 0);
    bcop_comm_broadcast(comm, &s->manifest, sizeof s->manifest, 0);
    const long bytes = s->manifest.count * (long)sizeof *own;
    s->manifest.entry = comm->rank == 0 ? own : malloc((size_t)bytes + 1);
    status = BCOP_OK;
    if (!s->manifest.entry && bytes)
        status = bcop_status_fail(BCOP_INTERNAL, "out of memory for the manifest");
    BCOP_TRY(bcop_comm_agree(comm, status));
    bcop_comm_broadcast(comm, s->manifest.entry, bytes, 0);
    return BCOP_OK;
}

static bcop_status read_config(const bcop_comm *comm, bcop_snapshot *s, const char *path,
                               bcop_experiment *experiment) {
    long length;
    BCOP_TRY(bcop_store_text_length(s->store, "/", "config", &length));
    char *text = malloc((size_t)length + 1);
    bcop_status status = BCOP_OK;
    if (!text)
        status = bcop_status_fail(BCOP_INTERNAL, "out of memory for the configuration");
    status = bcop_comm_agree(comm, status);
    if (status == BCOP_OK)
        status = bcop_store_text(s->store, "/", "config", text, length + 1);
    bcop_config *config = NULL;
    if (status == BCOP_OK)
        status = bcop_config_parse(text, (size_t)length, path, &config);
    if (status == BCOP_OK)
        status = bcop_experiment_read(config, experiment);
    free(text);
    if (status == BCOP_CONFIG) /* a configuration inside a file is data */
        status = bcop_status_fail(BCOP_BAD_DATA, "%s", bcop_status_message());
    const bcop_status agreed = bcop_comm_agree(comm, status);
    if (agreed != BCOP_OK && status == BCOP_OK)
        bcop_experiment_free(experiment);
    return agreed;
}

static bcop_status read_size(bcop_snapshot *s, const char *name, int *size) {
    long value;
    BCOP_TRY(bcop_store_long(s->store, "/", name, &value));
    if (value < 1 || value > 1 << 20)
        return bcop_status_fail(BCOP_BAD_DATA, "%s/state.h5: %s is %ld", s->folder, name, value);
    *size = (int)value;
    return BCOP_OK;
}

static bcop_status read_sizes(bcop_snapshot *s) {
    BCOP_TRY(read_size(s, "input_height", &s->in.height));
    BCOP_TRY(read_size(s, "input_width", &s->in.width));
    BCOP_TRY(read_size(s, "input_channels", &s->in.channels));
    return read_size(s, "classes", &s->classes);
}

static bcop_status read_progress(bcop_snapshot *s) {
    bcop_progress *p = &s->progress;
    BCOP_TRY(bcop_store_long(s->store, "/", "version", &s->version));
    BCOP_TRY(bcop_store_long(s->store, "/", "step", &p->step));
    BCOP_TRY(bcop_store_long(s->store, "/", "epoch", &p->epoch));
    BCOP_TRY(bcop_store_text(s->store, "/", "created", s->created, sizeof s->created));
    BCOP_TRY(bcop_store_text(s->store, "/", "software", s->software, sizeof s->software));
    BCOP_TRY(bcop_store_long(s->store, "/history", "best_step", &p->best_step));
    BCOP_TRY(bcop_store_real(s->store, "/history", "best_certified", &p->best_certified));
    BCOP_TRY(bcop_store_real(s->store, "/history", "best_clean", &p->best_clean));
    if (p->step < 0 || p->epoch < 0 || p->best_step < -1 || p->best_step > p->step ||
        !isfinite(p->best_certified) || !isfinite(p->best_clean))
        return bcop_status_fail(BCOP_BAD_DATA,
                                "%s/state.h5: its progress makes no sense (step %ld)", s->folder,
                                p->step);
    if (s->has_manifest && (s->manifest.step != p->step || s->manifest.epoch != p->epoch))
        return bcop_status_fail(
            BCOP_BAD_DATA, "%s/%s: is of step %ld in epoch %ld, state.h5 of step %ld in epoch %ld",
            s->folder, BCOP_MANIFEST_NAME, s->manifest.step, s->manifest.epoch, p->step, p->epoch);
    return BCOP_OK;
}

bcop_status bcop_checkpoint_open(const bcop_comm *comm, const char *folder, bcop_snapshot *s,
                                 bcop_experiment *experiment) {
    *s = (bcop_snapshot){0};
    snprintf(s->folder, sizeof s->folder, "%s", folder);
    char path[sizeof s->folder + 32];
    snprintf(path, sizeof path, "%s/state.h5", folder);
    bcop_status status = open_manifest(comm, s);
    if (status == BCOP_OK)
        status = bcop_store_open(comm, path, &s->store);
    if (status == BCOP_OK)
        status = read_progress(s);
    if (status == BCOP_OK)
        status = read_sizes(s);
    if (status == BCOP_OK)
        status = read_config(comm, s, path, experiment);
    if (status != BCOP_OK)
        bcop_checkpoint_close(s);
    return status;
}

void bcop_checkpoint_close(bcop_snapshot *s) {
    bcop_store_close(s->store);
    bcop_manifest_free(&s->manifest);
    s->store = NULL;
}

/* What was read against the manifest, and against what numbers may be. */
static bcop_status check_field(const bcop_snapshot *s, const bcop_field *field) {
    const bcop_manifest_entry *entry = NULL;
    for (int i = 0; i < s->manifest.count && !entry; i++)
        if (strcmp(s->manifest.entry[i].path, field->path) == 0)
            entry = &s->manifest.entry[i];
    if (s->has_manifest && !entry)
        return bcop_status_fail(BCOP_BAD_DATA, "%s/%s: has no hash for %s", s->folder,
                                BCOP_MANIFEST_NAME, field->path);
    if (s->has_manifest && entry->hash != bcop_store_hash(field))
        return bcop_status_fail(BCOP_BAD_DATA, "%s/state.h5: %s differs from its hash", s->folder,
                                field->path);
    char place[sizeof s->folder + 32];
    snprintf(place, sizeof place, "%s/state.h5", s->folder);
    return check_finite(place, field, BCOP_BAD_DATA);
}

bcop_status bcop_checkpoint_load(bcop_checkpoint *c, bcop_snapshot *s, unsigned parts) {
    bcop_status mine = BCOP_OK;
    for (int i = 0; i < c->count; i++) {
        if (!((unsigned)c->part[i] & parts))
            continue;
        BCOP_TRY(bcop_store_read(s->store, &c->field[i]));
        if (mine == BCOP_OK)
            mine = check_field(s, &c->field[i]);
    }
    /* Everything was asked for: then the manifest must know of nothing else. */
    if (mine == BCOP_OK && s->has_manifest && s->manifest.count != c->count &&
        (parts & BCOP_PART_OPTIMIZER))
        mine = bcop_status_fail(BCOP_BAD_DATA, "%s/%s: lists %d fields, the network has %d",
                                s->folder, BCOP_MANIFEST_NAME, s->manifest.count, c->count);
    BCOP_TRY(bcop_comm_agree(c->comm, mine));
    if (parts & BCOP_PART_OPTIMIZER)
        move_slots(c, false);
    for (int i = 0; (parts & BCOP_PART_OPERATOR) && i < c->model->count; i++)
        if (c->model->layer[i].kind->load)
            c->model->layer[i].kind->load(&c->model->layer[i], c->stored[i]);
    return BCOP_OK;
}
