#include "train/checkpoint.h"

#include "base/clock.h"
#include "base/fault.h"
#include "base/file.h"
#include "base/host.h"
#include "base/log.h"
#include "linalg/product.h"
#include "train/rundir.h"

#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the registry of the training state ----
 *
 * Everything that influences the future of a run and does not follow from its configuration:
 * parameters and optimizer state, the arrays of the field table below, and these numbers.
 * tests/train/test_registry.py sees that nothing is in neither. */

static const struct {
    const char *group, *name;
    bcop_attribute_type type;
    size_t at; /* in bcop_progress */
} progress_table[] = {
    {"/", "step", BCOP_ATTRIBUTE_LONG, offsetof(bcop_progress, step)},
    {"/", "epoch", BCOP_ATTRIBUTE_LONG, offsetof(bcop_progress, epoch)},
    {"/history", "best_step", BCOP_ATTRIBUTE_LONG, offsetof(bcop_progress, best_step)},
    {"/history", "best_certified", BCOP_ATTRIBUTE_REAL, offsetof(bcop_progress, best_certified)},
    {"/history", "best_clean", BCOP_ATTRIBUTE_REAL, offsetof(bcop_progress, best_clean)},
    {"/history", "evaluated_step", BCOP_ATTRIBUTE_LONG, offsetof(bcop_progress, evaluated_step)},
};
enum { PROGRESS_COUNT = sizeof progress_table / sizeof *progress_table };
_Static_assert(PROGRESS_COUNT * 8 == sizeof(bcop_progress), "every member is in the table");

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
                        .help = p->orthonormal             ? "block with orthonormal columns"
                                : strstr(p->name, "/bias") ? "bias"
                                                           : "plain parameter"};
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
            field.data = bcop_arena_borrow_floats(arena, field.size[0] * field.size[1]);
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
    bcop_arena_turn(arena);
    c->stored = bcop_arena_take(arena, model->count, sizeof *c->stored);
    for (int i = 0; i < model->count; i++) {
        float *stored = bcop_arena_borrow_floats(arena, bcop_layer_stored_count(&model->layer[i]));
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
    for (int i = 0; i < PROGRESS_COUNT; i++) {
        const void *member = (const char *)progress + progress_table[i].at;
        if (progress_table[i].type == BCOP_ATTRIBUTE_LONG)
            put_long(a, progress_table[i].group, progress_table[i].name, *(const long *)member);
        else
            put_real(a, progress_table[i].group, progress_table[i].name, *(const double *)member);
    }
}

static long field_size(const bcop_field *field) {
    long size = 1;
    for (int d = 0; d < field->dimensions; d++)
        size *= field->size[d];
    return size;
}

static long field_bytes(const bcop_field *field) {
    return field_size(field) * (field->type == BCOP_FIELD_FLOAT ? 4 : 8);
}

static bcop_status check_finite(const char *place, const bcop_field *field, bcop_status code) {
    const long size = field_size(field);
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

/* What every rank must hold alike. */
static uint64_t hash_parameters(const bcop_checkpoint *c) {
    uint64_t hash = 0;
    for (int i = 0; i < c->count; i++)
        if (c->part[i] & (BCOP_PART_BIAS | BCOP_PART_BLOCK)) {
            const long bytes = field_bytes(&c->field[i]);
            for (long b = 0; b < bcop_seal_blocks(bytes); b++)
                hash = 31 * hash + bcop_seal_hash(c->field[i].data, bytes, b);
        }
    return hash;
}

/* Point 1. */
static bcop_status agree_on_state(const bcop_checkpoint *c, const bcop_progress *progress,
                                  uint64_t config) {
    const struct {
        bcop_progress progress;
        uint64_t config, parameters;
    } description = {*progress, config, hash_parameters(c)};
    BCOP_TRY(bcop_comm_agree(c->comm, check_state(c, progress)));
    const bcop_status status =
        bcop_comm_same(c->comm, &description, sizeof description, "state to be saved");
    return status == BCOP_OK ? BCOP_OK
                             : bcop_status_fail(BCOP_INTERNAL, "%s", bcop_status_message());
}

/* What is written about one state. */
typedef struct writing {
    const bcop_experiment *experiment;
    const bcop_progress *progress;
    const char *run;
    char folder[BCOP_PATH_MAX]; /* the temporary one */
    bool there;                 /* it has its name */
    char *config;               /* owned */
    attributes attributes;
    bcop_manifest manifest; /* the seal is owned */
} writing;

static bcop_status prepare(const bcop_checkpoint *c, writing *w) {
    for (int i = 0; i < c->model->count; i++)
        if (c->model->layer[i].kind->store)
            c->model->layer[i].kind->store(&c->model->layer[i], c->stored[i]);
    w->config = bcop_experiment_text(w->experiment);
    w->attributes.list = calloc(ATTRIBUTES_MAX, sizeof *w->attributes.list);
    if (!w->config || !w->attributes.list)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory for the checkpoint");
    w->manifest.config = bcop_seal_hash(w->config, (long)strlen(w->config), 0);
    fill_attributes(&w->attributes, c, w->experiment, w->progress, w->config, w->manifest.created);
    return BCOP_OK;
}

static void discard(writing *w) {
    for (int i = 0; i < w->attributes.texts; i++)
        free(w->attributes.owned[i]);
    free(w->attributes.list);
    free(w->config);
    bcop_manifest_free(&w->manifest);
}

/* Rank 0: what a killed attempt left, whatever it is, gives way. */
static bcop_status make_folder(const char *folder) {
    bcop_rundir_remove(folder);
    if (mkdir(folder, 0777) != 0)
        return bcop_status_errno(BCOP_CANNOT_CREATE, "%s: cannot create", folder);
    return BCOP_OK;
}

/* Points 8 and 9, on rank 0. */
static bcop_status commit(writing *w) {
    char folder[BCOP_PATH_MAX];
    bcop_rundir_step_path(w->run, w->progress->step, "", folder);
    BCOP_TRY(bcop_fault_at(BCOP_FAULT_CKPT_MANIFEST, NULL));
    BCOP_TRY(bcop_manifest_write(w->folder, &w->manifest));
    BCOP_TRY(bcop_fault_at(BCOP_FAULT_CKPT_RENAME, NULL));
    if (rename(w->folder, folder) != 0)
        return bcop_status_errno(BCOP_IO, "%s: cannot rename", w->folder);
    w->there = true;
    BCOP_TRY(bcop_fault_at(BCOP_FAULT_CKPT_LINK, NULL));
    return bcop_file_sync(w->run);
}

static bcop_status write_all(const bcop_checkpoint *c, writing *w) {
    const bool root = c->comm->rank == 0;
    char state[BCOP_PATH_MAX];
    BCOP_TRY(bcop_comm_agree(c->comm, prepare(c, w)));
    BCOP_TRY(agree_on_state(c, w->progress, w->manifest.config));
    BCOP_TRY(bcop_comm_agree(c->comm, root ? make_folder(w->folder) : BCOP_OK));
    bcop_rundir_step_path(w->run, w->progress->step, ".tmp/state.h5", state);
    bcop_status status = bcop_store_write(c->comm, state, w->attributes.count, w->attributes.list,
                                          c->count, c->field, &w->manifest.seal);
    if (status == BCOP_OK)
        status = bcop_comm_agree(c->comm, root ? commit(w) : BCOP_OK);
    if (status != BCOP_OK && root)
        bcop_rundir_remove(w->folder);
    bcop_comm_broadcast(c->comm, &w->there, sizeof w->there, 0);
    return status;
}

bcop_manifest_origin bcop_checkpoint_origin(const bcop_comm *comm) {
    bcop_manifest_origin o = {.ranks = comm->size, .threads = bcop_product_thread_count()};
    const char *job = bcop_host_job();
    snprintf(o.host, sizeof o.host, "%s", bcop_host_name());
    snprintf(o.job, sizeof o.job, "%s", job ? job : "");
    snprintf(o.cpu, sizeof o.cpu, "%s", bcop_host_cpu());
    snprintf(o.blas, sizeof o.blas, "%s", bcop_product_library());
    snprintf(o.mpi, sizeof o.mpi, "%s", bcop_comm_library());
    snprintf(o.hdf5, sizeof o.hdf5, "%s", bcop_store_library());
    return o;
}

bcop_status bcop_checkpoint_write(bcop_checkpoint *c, const bcop_experiment *e, const char *run,
                                  const bcop_progress *progress, uint64_t fingerprint, long *bytes,
                                  bool *there) {
    move_slots(c, true);
    writing w = {.experiment = e,
                 .progress = progress,
                 .run = run,
                 .manifest = {.step = progress->step,
                              .epoch = progress->epoch,
                              .software = "bcop " BCOP_VERSION,
                              .data_fingerprint = fingerprint,
                              .origin = bcop_checkpoint_origin(c->comm)}};
    bcop_rundir_step_path(run, progress->step, ".tmp", w.folder);
    bcop_clock_stamp(w.manifest.created);
    const bcop_status status = write_all(c, &w);
    *bytes = w.manifest.seal.bytes;
    *there = w.there;
    discard(&w);
    return status;
}

/* ---- reading ---- */

/* Rank 0: the manifest, and every byte of the state against it. */
static bcop_status verify(bcop_snapshot *s) {
    char path[sizeof s->folder + 32];
    BCOP_TRY(bcop_fault_at(BCOP_FAULT_LOAD_OPEN, NULL));
    snprintf(path, sizeof path, "%s/%s", s->folder, BCOP_MANIFEST_NAME);
    s->has_manifest = access(path, F_OK) == 0;
    if (!s->has_manifest)
        return BCOP_OK;
    BCOP_TRY(bcop_manifest_read(s->folder, &s->manifest));
    snprintf(path, sizeof path, "%s/state.h5", s->folder);
    return bcop_seal_check(path, &s->manifest.seal, true, NULL, NULL);
}

/* The seal from rank 0, whose memory others have yet to take. */
static bcop_status share_seal(const bcop_comm *comm, bcop_seal *seal) {
    bcop_seal all = *seal;
    bcop_status status = BCOP_OK;
    if (comm->rank != 0) {
        status = bcop_seal_create(all.count, seal);
        seal->hash = calloc((size_t)all.blocks + 1, sizeof *seal->hash);
        if (status == BCOP_OK && !seal->hash)
            status = bcop_status_fail(BCOP_INTERNAL, "out of memory for the manifest");
        seal->bytes = all.bytes;
        seal->structure = all.structure;
        seal->blocks = all.blocks;
    }
    BCOP_TRY(bcop_comm_agree(comm, status));
    bcop_comm_broadcast(comm, seal->array, seal->count * (long)sizeof *seal->array, 0);
    bcop_comm_broadcast(comm, seal->hash, seal->blocks * (long)sizeof *seal->hash, 0);
    return BCOP_OK;
}

/* Rank 0 reads the manifest and verifies, the others get it. */
static bcop_status open_manifest(const bcop_comm *comm, bcop_snapshot *s) {
    BCOP_TRY(bcop_comm_agree(comm, comm->rank == 0 ? verify(s) : BCOP_OK));
    const bcop_seal own = s->manifest.seal;
    bcop_comm_broadcast(comm, &s->has_manifest, sizeof s->has_manifest, 0);
    bcop_comm_broadcast(comm, &s->manifest, sizeof s->manifest, 0);
    if (comm->rank == 0)
        s->manifest.seal = own;
    return s->has_manifest ? share_seal(comm, &s->manifest.seal) : BCOP_OK;
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
    if (status == BCOP_OK && s->has_manifest &&
        s->manifest.config != bcop_seal_hash(text, length, 0))
        status =
            bcop_status_fail(BCOP_BAD_DATA, "%s: its configuration is not the manifest's", path);
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
    BCOP_TRY(bcop_store_text(s->store, "/", "created", s->created, sizeof s->created));
    BCOP_TRY(bcop_store_text(s->store, "/", "software", s->software, sizeof s->software));
    for (int i = 0; i < PROGRESS_COUNT; i++) {
        void *member = (char *)p + progress_table[i].at;
        if (progress_table[i].type == BCOP_ATTRIBUTE_LONG)
            BCOP_TRY(
                bcop_store_long(s->store, progress_table[i].group, progress_table[i].name, member));
        else
            BCOP_TRY(
                bcop_store_real(s->store, progress_table[i].group, progress_table[i].name, member));
    }
    if (p->step < 0 || p->epoch < 0 || p->best_step < -1 || p->best_step > p->step ||
        p->evaluated_step < -1 || p->evaluated_step > p->step || !isfinite(p->best_certified) ||
        !isfinite(p->best_clean))
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
    const int entry = bcop_seal_find(&s->manifest.seal, field->path);
    if (s->has_manifest && entry < 0)
        return bcop_status_fail(BCOP_BAD_DATA, "%s/%s: has no hash for %s", s->folder,
                                BCOP_MANIFEST_NAME, field->path);
    if (s->has_manifest && (s->manifest.seal.array[entry].bytes != field_bytes(field) ||
                            !bcop_seal_agrees(&s->manifest.seal, entry, field->data)))
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
    if (mine == BCOP_OK && s->has_manifest && s->manifest.seal.count != c->count &&
        (parts & BCOP_PART_OPTIMIZER))
        mine = bcop_status_fail(BCOP_BAD_DATA, "%s/%s: lists %d fields, the network has %d",
                                s->folder, BCOP_MANIFEST_NAME, s->manifest.seal.count, c->count);
    BCOP_TRY(bcop_comm_agree(c->comm, mine));
    if (parts & BCOP_PART_OPTIMIZER)
        move_slots(c, false);
    for (int i = 0; (parts & BCOP_PART_OPERATOR) && i < c->model->count; i++)
        if (c->model->layer[i].kind->load)
            c->model->layer[i].kind->load(&c->model->layer[i], c->stored[i]);
    return BCOP_OK;
}
