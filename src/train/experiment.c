#include "train/experiment.h"

#include "base/log.h"
#include "nn/model.h"

#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define AT(member) offsetof(bcop_experiment, member)

/* ---- the tables of the sections that live here ---- */

static const bcop_option root_table[] = {
    {.key = "name",
     .type = BCOP_OPTION_TEXT,
     .offset = AT(root.name),
     .help = "name of the run; its directory is checkpoints/<name> unless --run says otherwise"},
    {.key = "seed",
     .type = BCOP_OPTION_LONG,
     .offset = AT(root.seed),
     .min = 0,
     .max = 9007199254740992.0,
     .fallback = "0",
     .help = "of initial blocks, order and augmentation"},
    {.key = "task",
     .type = BCOP_OPTION_CHOICE,
     .offset = AT(root.task),
     .choices = "classify",
     .fallback = "classify",
     .help = "what is learned"},
    {0},
};

static const bcop_option input_table[] = {
    {.key = "mean",
     .type = BCOP_OPTION_REALS,
     .offset = AT(input.mean),
     .fallback = "[0.0]",
     .help = "subtracted from the pixels (in [0, 1]); one number or one per channel"},
    {.key = "std",
     .type = BCOP_OPTION_REALS,
     .offset = AT(input.std),
     .min = 1e-6,
     .max = 1e6,
     .fallback = "[1.0]",
     .help = "divides the pixels; the Lipschitz constant grows by 1/min std"},
    {0},
};

static const bcop_option ortho_table[] = {
    {.key = "tolerance",
     .type = BCOP_OPTION_REAL,
     .offset = AT(ortho.tolerance),
     .min = 1e-6,
     .max = 1e-2,
     .fallback = "2.0e-6",
     .help = "of ||U^T U - I||_F / sqrt(cols) after each update"},
    {.key = "max_iterations",
     .type = BCOP_OPTION_INT,
     .offset = AT(ortho.max_iterations),
     .min = 1,
     .max = 1000,
     .fallback = "30",
     .help = "Bjorck iterations a block may take in one update; more ends the run with 80"},
    {.key = "placement",
     .type = BCOP_OPTION_CHOICE,
     .offset = AT(ortho.placement),
     .choices = "auto|replicated",
     .fallback = "auto",
     .help = "where blocks are updated; auto chooses from a cost model"},
    {0},
};

static const bcop_option train_table[] = {
    {.key = "batch",
     .type = BCOP_OPTION_INT,
     .offset = AT(train.batch),
     .min = 1,
     .max = 1 << 20,
     .fallback = "128",
     .unit = "images",
     .help = "global batch, over all ranks; a multiple of lanes"},
    {.key = "lanes",
     .type = BCOP_OPTION_INT,
     .offset = AT(train.lanes),
     .min = 1,
     .max = 4096,
     .fallback = "16",
     .help =
         "parts into which the batch is cut whatever the number of ranks; a power of two; at most so many ranks"},
    {.key = "epochs",
     .type = BCOP_OPTION_INT,
     .offset = AT(train.epochs),
     .min = 1,
     .max = 1000000,
     .fallback = "20",
     .help = "passes over the training data"},
    {.key = "watchdog",
     .type = BCOP_OPTION_REAL,
     .offset = AT(train.watchdog),
     .max = 86400,
     .fallback = "60.0",
     .unit = "seconds",
     .help =
         "end the run with 81 when a step makes no progress for so long (or 20 median steps, if more); 0 never"},
    {0},
};

static const bcop_option evaluate_table[] = {
    {.key = "every",
     .type = BCOP_OPTION_INT,
     .offset = AT(evaluate.every),
     .min = 0,
     .max = 1000000,
     .fallback = "1",
     .unit = "epochs",
     .help =
         "between evaluations of the hold-out (of the test set if there is none); 0: only at the end"},
    {.key = "eps",
     .type = BCOP_OPTION_REALS,
     .offset = AT(evaluate.eps),
     .max = 1000,
     .fallback = "[36/255]",
     .unit = "pixel units (L2)",
     .help = "radii at which accuracy is certified; `best` is chosen by the last"},
    {0},
};

static const bcop_option checkpoint_table[] = {
    {.key = "every_epochs",
     .type = BCOP_OPTION_INT,
     .offset = AT(checkpoint.every_epochs),
     .min = 0,
     .max = 1000000,
     .fallback = "1",
     .unit = "epochs",
     .help = "between checkpoints; 0: not by epochs"},
    {.key = "every_minutes",
     .type = BCOP_OPTION_REAL,
     .offset = AT(checkpoint.every_minutes),
     .max = 100000,
     .fallback = "15.0",
     .unit = "minutes",
     .help = "between checkpoints within an epoch; 0: not by time"},
    {.key = "keep",
     .type = BCOP_OPTION_INT,
     .offset = AT(checkpoint.keep),
     .min = 1,
     .max = 1000000,
     .fallback = "3",
     .help = "newest checkpoints kept, beside the best"},
    {0},
};

/* ---- kinds, as the sections see them ---- */

typedef struct kind_view {
    const char *name, *help;
    const bcop_option *options;
    size_t size;
} kind_view;

#define KIND_OF(list, index)                                                                       \
    ((list)[index] ? (kind_view){(list)[index]->name, (list)[index]->help, (list)[index]->options, \
                                 (list)[index]->options_size}                                      \
                   : (kind_view){0})

static kind_view set_kind(int i) {
    return KIND_OF(bcop_set_kinds, i);
}
static kind_view loss_kind(int i) {
    return KIND_OF(bcop_loss_kinds, i);
}
static kind_view optimizer_kind(int i) {
    return KIND_OF(bcop_optimizer_kinds, i);
}
static kind_view layer_kind(int i) {
    return KIND_OF(bcop_layer_kinds, i);
}

/* A section: its name, its common keys, and, when it has kinds, where their index and options are.
 */
typedef struct config_section {
    const char *name; /* NULL: the root */
    const bcop_option *table;
    size_t offset;                 /* of what the table describes in the experiment */
    kind_view (*kinds)(int index); /* NULL: no kinds */
    const char *default_kind;      /* NULL: `kind` is required */
    size_t kind_at, options_at;
} config_section;

static const bcop_option no_table[] = {{0}};

static const config_section sections[] = {
    {.table = root_table},
    {"data", bcop_dataset_table, AT(data), set_kind, NULL, AT(data.kind), AT(data_options)},
    {.name = "input", .table = input_table},
    {"loss", no_table, 0, loss_kind, NULL, AT(loss.kind), AT(loss_options)},
    {.name = "ortho", .table = ortho_table},
    {"optimizer", bcop_optimizer_table, AT(optimizer), optimizer_kind, "adam", AT(optimizer.kind),
     AT(optimizer_options)},
    {.name = "schedule", .table = bcop_schedule_table, .offset = AT(schedule)},
    {.name = "train", .table = train_table},
    {.name = "evaluate", .table = evaluate_table},
    {.name = "checkpoint", .table = checkpoint_table},
};
enum { SECTIONS = sizeof sections / sizeof *sections, PARTS_MAX = 3, CHOICES_MAX = 256 };

static int kind_index(const config_section *s, const bcop_experiment *e) {
    return *(const int *)((const char *)e + s->kind_at);
}

static void **kind_options(const config_section *s, bcop_experiment *e) {
    return (void **)((char *)e + s->options_at);
}

/* The key `kind` as an option of its own; `choices` [CHOICES_MAX] must outlive it. */
static void kind_table(const config_section *s, char *choices, bcop_option table[2]) {
    size_t used = 0;
    for (int i = 0; s->kinds(i).name; i++)
        used += (size_t)snprintf(choices + used, CHOICES_MAX - used, "%s%s", i ? "|" : "",
                                 s->kinds(i).name);
    table[0] = (bcop_option){.key = "kind",
                             .type = BCOP_OPTION_CHOICE,
                             .offset = s->kind_at,
                             .choices = choices,
                             .fallback = s->default_kind,
                             .help = "which of the kinds below"};
    table[1] = (bcop_option){0};
}

/* The tables of a section with their targets in `e`. */
static int section_parts(const config_section *s, const bcop_experiment *e, bcop_option table[2],
                         char *choices, bcop_options part[PARTS_MAX]) {
    bcop_experiment *target = (bcop_experiment *)e;
    int parts = 0;
    if (s->kinds) {
        kind_table(s, choices, table);
        part[parts++] = (bcop_options){table, target};
    }
    part[parts++] = (bcop_options){s->table, (char *)target + s->offset};
    if (s->kinds)
        part[parts++] =
            (bcop_options){s->kinds(kind_index(s, e)).options, *kind_options(s, target)};
    return parts;
}

/* ---- reading ---- */

static bool is_root_key(const char *key) {
    for (const bcop_option *o = root_table; o->key; o++)
        if (strcmp(o->key, key) == 0)
            return true;
    return false;
}

/* Splits the root into its scalars and the sections, refusing what is neither. */
static bcop_status read_root(const bcop_node *root, bcop_experiment *e) {
    const char *known[SECTIONS + 8];
    int names = 0;
    for (const bcop_option *o = root_table; o->key; o++)
        known[names++] = o->key;
    for (int s = 1; s < SECTIONS; s++)
        known[names++] = sections[s].name;
    known[names++] = "model";
    known[names] = NULL;
    bcop_node *scalar[8], view = *root;
    view.count = 0;
    view.child = scalar;
    for (int i = 0; i < root->count; i++) {
        bcop_node *node = root->child[i];
        bool found = false;
        for (int k = 0; known[k]; k++)
            found = found || strcmp(known[k], node->key) == 0;
        if (!found) {
            const char *near = bcop_config_suggest(node->key, known);
            return bcop_config_fail(node, "unknown key%s%s%s", near ? "; did you mean '" : "",
                                    near ? near : "", near ? "'?" : "");
        }
        if (is_root_key(node->key))
            view.child[view.count++] = node;
    }
    return bcop_option_read(&view, root, "", 1, &(bcop_options){root_table, e});
}

static bcop_status read_section(const config_section *s, const bcop_node *root,
                                bcop_experiment *e) {
    const bcop_node *node = bcop_config_find(root, s->name);
    bcop_option table[2];
    char choices[CHOICES_MAX];
    if (s->kinds) {
        /* The kind first: it decides which other keys there are. */
        kind_table(s, choices, table);
        const bcop_node *name =
            node && node->type == BCOP_NODE_MAP ? bcop_config_find(node, "kind") : NULL;
        bcop_node *only[1] = {(bcop_node *)name}, view = node ? *node : *root;
        if (name || (node && node->type == BCOP_NODE_MAP)) {
            view.count = name ? 1 : 0;
            view.child = only;
        }
        BCOP_TRY(
            bcop_option_read(node ? &view : NULL, root, s->name, 1, &(bcop_options){table, e}));
        *kind_options(s, e) = calloc(1, s->kinds(kind_index(s, e)).size + 1);
        if (!*kind_options(s, e))
            return bcop_status_fail(BCOP_INTERNAL, "out of memory for the configuration");
    }
    bcop_options part[PARTS_MAX];
    const int parts = section_parts(s, e, table, choices, part);
    return bcop_option_read(node, root, s->name, parts, part);
}

/* The options of one layer of the model list; the caller frees *options. */
static bcop_status read_layer(const bcop_node *entry, const bcop_layer_kind **kind,
                              void **options) {
    const bcop_node *node;
    BCOP_TRY(bcop_model_entry(entry, kind, &node));
    *options = calloc(1, (*kind)->options_size + 1);
    if (!*options)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory for the configuration");
    return bcop_option_read(node, entry, (*kind)->name, 1,
                            &(bcop_options){(*kind)->options, *options});
}

static bcop_status read_model(const bcop_node *root, bcop_experiment *e) {
    e->model_node = bcop_config_find(root, "model");
    if (!e->model_node)
        return bcop_config_fail(root, "'model' is required");
    if (e->model_node->type != BCOP_NODE_LIST || e->model_node->count == 0)
        return bcop_config_fail(e->model_node, "must be a list of layers");
    for (int i = 0; i < e->model_node->count; i++) {
        const bcop_layer_kind *kind;
        void *options = NULL;
        const bcop_status status = read_layer(e->model_node->child[i], &kind, &options);
        free(options);
        BCOP_TRY(status);
    }
    return BCOP_OK;
}

static bool is_name(const char *name) {
    return name[0] != '.' &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") ==
               strlen(name);
}

static const bcop_node *place(const bcop_node *root, const char *section, const char *key) {
    const bcop_node *node = section ? bcop_config_find(root, section) : root;
    const bcop_node *value = node ? bcop_config_find(node, key) : NULL;
    return value ? value : node ? node : root;
}

/* What no single option's range can say. */
static bcop_status check(const bcop_node *root, const bcop_experiment *e) {
    const int lanes = e->train.lanes;
    if (!is_name(e->root.name))
        return bcop_config_fail(place(root, NULL, "name"),
                                "only letters, digits, '.', '_' and '-', not starting with '.' "
                                "(got '%s')",
                                e->root.name);
    if (lanes & (lanes - 1))
        return bcop_config_fail(place(root, "train", "lanes"), "must be a power of two (got %d)",
                                lanes);
    if (e->train.batch % lanes)
        return bcop_config_fail(place(root, "train", "batch"),
                                "must be a multiple of the %d lanes (got %d)", lanes,
                                e->train.batch);
    return BCOP_OK;
}

static bcop_status read_all(bcop_experiment *e) {
    const bcop_node *root = bcop_config_root(e->config);
    BCOP_TRY(read_root(root, e));
    for (int s = 1; s < SECTIONS; s++)
        BCOP_TRY(read_section(&sections[s], root, e));
    BCOP_TRY(read_model(root, e));
    const bcop_node *input = bcop_config_find(root, "input");
    e->input_node = input ? input : root;
    return check(root, e);
}

bcop_status bcop_experiment_read(bcop_config *config, bcop_experiment *e) {
    *e = (bcop_experiment){.config = config};
    const bcop_status status = read_all(e);
    if (status != BCOP_OK)
        bcop_experiment_free(e);
    return status;
}

void bcop_experiment_free(bcop_experiment *e) {
    free(e->data_options);
    free(e->loss_options);
    free(e->optimizer_options);
    bcop_config_free(e->config);
    *e = (bcop_experiment){0};
}

const bcop_loss_kind *bcop_experiment_loss(const bcop_experiment *e) {
    return bcop_loss_kinds[e->loss.kind];
}

const bcop_optimizer_kind *bcop_experiment_optimizer(const bcop_experiment *e) {
    return bcop_optimizer_kinds[e->optimizer.kind];
}

/* ---- writing ---- */

static void write_layer(FILE *out, const bcop_node *entry) {
    const bcop_layer_kind *kind;
    void *options = NULL;
    if (read_layer(entry, &kind, &options) == BCOP_OK) {
        fprintf(out, "  - %s: ", kind->name);
        bcop_option_write(out, 1, &(bcop_options){kind->options, options});
        fputc('\n', out);
    }
    free(options);
}

void bcop_experiment_write(const bcop_experiment *e, FILE *out) {
    for (const bcop_option *o = root_table; o->key; o++) {
        fprintf(out, "%s: ", o->key);
        bcop_option_write_value(out, o, e);
        fputc('\n', out);
    }
    for (int i = 1; i < SECTIONS; i++) {
        const config_section *s = &sections[i];
        bcop_option table[2];
        char choices[CHOICES_MAX];
        bcop_options part[PARTS_MAX];
        const int parts = section_parts(s, e, table, choices, part);
        fprintf(out, "%s: ", s->name);
        bcop_option_write(out, parts, part);
        fputc('\n', out);
        if (strcmp(s->name, "input") == 0) { /* the model stands where data flows to it */
            fputs("model:\n", out);
            for (int l = 0; l < e->model_node->count; l++)
                write_layer(out, e->model_node->child[l]);
        }
    }
}

char *bcop_experiment_text(const bcop_experiment *e) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return NULL;
    bcop_experiment_write(e, out);
    fclose(out);
    return text;
}

/* ---- comparing ---- */

static char *value_text(const bcop_option *o, const void *target) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return NULL;
    bcop_option_write_value(out, o, target);
    fclose(out);
    return text;
}

/* Complains that a value differs (BCOP_CONFIG), or logs it when `binding` is false. */
static bcop_status report(bool binding, const char *section, const bcop_option *o, const void *now,
                          const void *then) {
    char *a = value_text(o, now), *b = value_text(o, then);
    bcop_status status = BCOP_OK;
    if (binding)
        status =
            bcop_status_fail(BCOP_CONFIG, "%s%s%s: is %s but the checkpoint was trained with %s",
                             section, *section ? "." : "", o->key, a ? a : "?", b ? b : "?");
    else
        bcop_log_info("%s%s%s: now %s, was %s", section, *section ? "." : "", o->key, a ? a : "?",
                      b ? b : "?");
    free(a);
    free(b);
    return status;
}

static bool is_binding(const char *section, const char *key) {
    static const char *const all[] = {"data", "input", "loss", NULL};
    static const char *const single[][2] = {
        {"", "seed"}, {"", "task"}, {"optimizer", "kind"}, {"train", "batch"}, {"train", "lanes"}};
    for (int i = 0; all[i]; i++)
        if (strcmp(section, all[i]) == 0)
            return true;
    for (size_t i = 0; i < sizeof single / sizeof *single; i++)
        if (strcmp(section, single[i][0]) == 0 && strcmp(key, single[i][1]) == 0)
            return true;
    return false;
}

static bcop_status compare_part(const char *section, bcop_options now, bcop_options then) {
    for (const bcop_option *o = now.table; o->key; o++) {
        const bcop_option single[2] = {*o, {0}};
        if (bcop_option_differs(single, now.target, then.target))
            BCOP_TRY(report(is_binding(section, o->key), section, o, now.target, then.target));
    }
    return BCOP_OK;
}

static bcop_status compare_layer(int index, const bcop_node *now, const bcop_node *then) {
    const bcop_layer_kind *kind[2];
    void *options[2] = {NULL, NULL};
    bcop_status status = read_layer(now, &kind[0], &options[0]);
    if (status == BCOP_OK)
        status = read_layer(then, &kind[1], &options[1]);
    if (status == BCOP_OK && kind[0] != kind[1])
        status =
            bcop_status_fail(BCOP_CONFIG, "model[%d]: is %s but the checkpoint was trained with %s",
                             index, kind[0]->name, kind[1]->name);
    if (status == BCOP_OK) {
        const bcop_option *o = bcop_option_differs(kind[0]->options, options[0], options[1]);
        char section[64];
        snprintf(section, sizeof section, "model[%d].%s", index, kind[0]->name);
        if (o)
            status = report(true, section, o, options[0], options[1]);
    }
    free(options[0]);
    free(options[1]);
    return status;
}

bcop_status bcop_experiment_compatible(const bcop_experiment *now, const bcop_experiment *then) {
    for (int i = 0; i < SECTIONS; i++) {
        const config_section *s = &sections[i];
        bcop_option table[2][2];
        char choices[2][CHOICES_MAX];
        bcop_options a[PARTS_MAX], b[PARTS_MAX];
        const int parts = section_parts(s, now, table[0], choices[0], a);
        section_parts(s, then, table[1], choices[1], b);
        for (int p = 0; p < parts; p++) {
            /* the kind comes first, so the kinds' tables are the same when they are reached */
            if (a[p].table == b[p].table || p == 0)
                BCOP_TRY(compare_part(s->name ? s->name : "", a[p], b[p]));
        }
    }
    if (now->model_node->count != then->model_node->count)
        return bcop_status_fail(BCOP_CONFIG,
                                "model: has %d layers but the checkpoint was trained with %d",
                                now->model_node->count, then->model_node->count);
    for (int l = 0; l < now->model_node->count; l++)
        BCOP_TRY(compare_layer(l, now->model_node->child[l], then->model_node->child[l]));
    return BCOP_OK;
}

/* ---- the reference ---- */

/* The keys of a kind as comments, since a file has the keys of one kind only. */
static void reference_kind(FILE *out, const char *opening, kind_view k) {
    fprintf(out, "  # %s%s: %s\n", opening, k.name, k.help);
    char *text = NULL;
    size_t size = 0;
    FILE *lines = open_memstream(&text, &size);
    if (!lines)
        return;
    bcop_option_reference(lines, 0, k.options);
    fclose(lines);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n"))
        fprintf(out, "  #   %s\n", line);
    free(text);
}

static void reference_section(FILE *out, const config_section *s) {
    fprintf(out, "\n%s:\n", s->name);
    if (s->kinds) {
        bcop_option table[2];
        char choices[CHOICES_MAX];
        kind_table(s, choices, table);
        bcop_option_reference(out, 2, table);
    }
    bcop_option_reference(out, 2, s->table);
    for (int i = 0; s->kinds && s->kinds(i).name; i++)
        reference_kind(out, "kind: ", s->kinds(i));
}

void bcop_experiment_reference(FILE *out) {
    fputs("# Every key of a configuration with its default, type, range and meaning, as\n"
          "# `bcop reference` prints it. Keys marked REQUIRED have no default.\n\n",
          out);
    bcop_option_reference(out, 0, root_table);
    for (int i = 1; i < SECTIONS; i++) {
        reference_section(out, &sections[i]);
        if (strcmp(sections[i].name, "input") == 0) {
            fputs("\nmodel: REQUIRED   # a list of layers, from input to logits, each one of\n",
                  out);
            for (int l = 0; layer_kind(l).name; l++)
                reference_kind(out, "- ", layer_kind(l));
        }
    }
}
