#include "train/compatible.h"

#include "base/log.h"
#include "train/sections.h"

#include <stdlib.h>
#include <string.h>

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
    bcop_status status = bcop_sections_read_layer(now, &kind[0], &options[0]);
    if (status == BCOP_OK)
        status = bcop_sections_read_layer(then, &kind[1], &options[1]);
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

bcop_status bcop_compatible_check(const bcop_experiment *now, const bcop_experiment *then) {
    for (int i = 0; i < bcop_sections_count; i++) {
        const bcop_section *s = &bcop_sections[i];
        const char *name = s->name ? s->name : "";
        bcop_section_view a, b;
        bcop_sections_all(s, now, &a);
        bcop_sections_all(s, then, &b);
        for (int p = 0; p < a.parts; p++) {
            /* The first part may be the kind, whose table is the view's own. The tables of
               different kinds of optimizer, which the check of the kind has let pass, cannot be
               compared. */
            if (a.part[p].table == b.part[p].table || p == 0)
                BCOP_TRY(compare_part(name, a.part[p], b.part[p]));
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
