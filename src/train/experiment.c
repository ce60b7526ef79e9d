#include "train/experiment.h"

#include "train/sections.h"

#include <stdlib.h>
#include <string.h>

/* ---- reading ---- */

/* Splits the root into its scalars and the sections, refusing what is neither. */
static bcop_status read_root(const bcop_node *root, bcop_experiment *e) {
    const bcop_option *table = bcop_sections[0].table;
    const char *known[32];
    int scalars = 0, names;
    for (const bcop_option *o = table; o->key; o++)
        known[scalars++] = o->key;
    names = scalars;
    for (int s = 1; s < bcop_sections_count; s++)
        known[names++] = bcop_sections[s].name;
    known[names++] = "model";
    known[names] = NULL;
    bcop_node *scalar[32], view = *root;
    view.count = 0;
    view.child = scalar;
    for (int i = 0; i < root->count; i++) {
        bcop_node *node = root->child[i];
        int at = 0;
        while (known[at] && strcmp(known[at], node->key) != 0)
            at++;
        if (!known[at]) {
            const char *near = bcop_config_suggest(node->key, known);
            return bcop_config_fail(node, "unknown key%s%s%s", near ? "; did you mean '" : "",
                                    near ? near : "", near ? "'?" : "");
        }
        if (at < scalars)
            view.child[view.count++] = node;
    }
    return bcop_option_read(&view, root, "", 1, &(bcop_options){table, e});
}

/* Reads the key `kind` of a section: it decides which other keys there are. */
static bcop_status read_kind(const bcop_section *s, const bcop_node *node, const bcop_node *root,
                             bcop_experiment *e) {
    bcop_section_view kind;
    bcop_sections_kind(s, e, &kind);
    bcop_node *name = (bcop_node *)bcop_config_find(node, "kind"), alone;
    if (node && node->type == BCOP_NODE_MAP) {
        alone = *node;
        alone.count = name ? 1 : 0;
        alone.child = &name;
        node = &alone;
    }
    BCOP_TRY(bcop_option_read(node, root, s->name, kind.parts, kind.part));
    void **options = bcop_sections_options(s, e);
    *options = calloc(1, s->kinds(bcop_sections_index(s, e)).size + 1);
    if (!*options)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory for the configuration");
    return BCOP_OK;
}

static bcop_status read_section(const bcop_section *s, const bcop_node *root, bcop_experiment *e) {
    const bcop_node *node = bcop_config_find(root, s->name);
    if (s->kinds)
        BCOP_TRY(read_kind(s, node, root, e));
    bcop_section_view view;
    bcop_sections_all(s, e, &view);
    return bcop_option_read(node, root, s->name, view.parts, view.part);
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
        const bcop_status status =
            bcop_sections_read_layer(e->model_node->child[i], &kind, &options);
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

const bcop_node *bcop_experiment_place(const bcop_experiment *e, const char *section,
                                       const char *key) {
    const bcop_node *root = bcop_config_root(e->config);
    const bcop_node *node = section ? bcop_config_find(root, section) : root;
    const bcop_node *value = bcop_config_find(node, key);
    return value ? value : node ? node : root;
}

/* What no single option's range can say. */
static bcop_status check(const bcop_experiment *e) {
    const int lanes = e->train.lanes;
    if (!is_name(e->root.name))
        return bcop_config_fail(bcop_experiment_place(e, NULL, "name"),
                                "only letters, digits, '.', '_' and '-', not starting with '.' "
                                "(got '%s')",
                                e->root.name);
    if (lanes & (lanes - 1))
        return bcop_config_fail(bcop_experiment_place(e, "train", "lanes"),
                                "must be a power of two (got %d)", lanes);
    if (e->train.batch % lanes)
        return bcop_config_fail(bcop_experiment_place(e, "train", "batch"),
                                "must be a multiple of the %d lanes (got %d)", lanes,
                                e->train.batch);
    return BCOP_OK;
}

static bcop_status read_all(bcop_experiment *e) {
    const bcop_node *root = bcop_config_root(e->config);
    BCOP_TRY(read_root(root, e));
    for (int s = 1; s < bcop_sections_count; s++)
        BCOP_TRY(read_section(&bcop_sections[s], root, e));
    BCOP_TRY(read_model(root, e));
    const bcop_node *input = bcop_config_find(root, "input");
    e->input_node = input ? input : root;
    return check(e);
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
    if (bcop_sections_read_layer(entry, &kind, &options) == BCOP_OK) {
        fprintf(out, "  - %s: ", kind->name);
        bcop_option_write(out, 1, &(bcop_options){kind->options, options});
        fputc('\n', out);
    }
    free(options);
}

void bcop_experiment_write(const bcop_experiment *e, FILE *out) {
    for (const bcop_option *o = bcop_sections[0].table; o->key; o++) {
        fprintf(out, "%s: ", o->key);
        bcop_option_write_value(out, o, e);
        fputc('\n', out);
    }
    for (int i = 1; i < bcop_sections_count; i++) {
        const bcop_section *s = &bcop_sections[i];
        bcop_section_view view;
        bcop_sections_all(s, e, &view);
        fprintf(out, "%s: ", s->name);
        bcop_option_write(out, view.parts, view.part);
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
