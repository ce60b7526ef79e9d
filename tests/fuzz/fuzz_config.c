/* Reads the input as a configuration, then its first line as a --set assignment, and looks at every
 * node in every way. What can be read as options must survive writing and reading. */
#include "base/option.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct target {
    int kernel, kind;
    long steps;
    double lr;
    bool bias;
    char name[BCOP_TEXT_MAX];
    bcop_reals eps;
    bcop_texts files;
} target;

#define AT(field) .offset = offsetof(target, field)

static const bcop_option table[] = {
    {.key = "kernel", .type = BCOP_OPTION_INT, AT(kernel), .min = 1, .max = 7, .fallback = "3"},
    {.key = "kind", .type = BCOP_OPTION_CHOICE, AT(kind), .choices = "a|bc", .fallback = "a"},
    {.key = "steps", .type = BCOP_OPTION_LONG, AT(steps), .fallback = "0"},
    {.key = "lr", .type = BCOP_OPTION_REAL, AT(lr), .fallback = "1/3"},
    {.key = "bias", .type = BCOP_OPTION_BOOL, AT(bias), .fallback = "true"},
    {.key = "name", .type = BCOP_OPTION_TEXT, AT(name), .empty = true, .fallback = ""},
    {.key = "eps", .type = BCOP_OPTION_REALS, AT(eps), .empty = true, .fallback = "[]"},
    {.key = "files", .type = BCOP_OPTION_TEXTS, AT(files), .empty = true, .fallback = "[]"},
    {0},
};

static void require(bool holds) {
    if (!holds)
        abort();
}

static void round_trip(target *t) {
    char *yaml = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&yaml, &size);
    require(out);
    bcop_option_write(out, 1, (bcop_options[]){{table, t}});
    fclose(out);
    static target back;
    bcop_config *config;
    require(bcop_config_parse(yaml, size, "written", &config) == BCOP_OK);
    const bcop_node *root = bcop_config_root(config);
    require(bcop_option_read(root, root, "", 1, (bcop_options[]){{table, &back}}) == BCOP_OK);
    require(!bcop_option_differs(table, t, &back));
    bcop_config_free(config);
    free(yaml);
}

static void walk(const bcop_node *node, int depth) {
    static target t;
    require(depth <= 8);
    require(bcop_config_fail(node, "%s", "x") == BCOP_CONFIG);
    if (bcop_option_read(node, node, "x", 1, (bcop_options[]){{table, &t}}) == BCOP_OK)
        round_trip(&t);
    double value;
    if (node->type == BCOP_NODE_SCALAR && bcop_option_parse_real(node->text, &value))
        require(value - value == 0);
    for (int i = 0; i < node->count; i++) {
        const bcop_node *child = node->child[i];
        if (node->type == BCOP_NODE_MAP)
            require(bcop_config_find(node, child->key) == child);
        walk(child, depth + 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const char other[] = "model: [{a: 1}, {b: }]\nc: x\n";
    bcop_config *config;
    if (bcop_config_parse((const char *)data, size, "fuzz", &config) != BCOP_OK) {
        require(!config);
        require(bcop_config_parse(other, sizeof other - 1, "", &config) == BCOP_OK);
    }
    walk(bcop_config_root(config), 0);
    const uint8_t *end = size ? memchr(data, '\n', size) : NULL;
    const size_t length = end ? (size_t)(end - data) : size;
    char *line = calloc(1, length + 1);
    require(line);
    if (length)
        memcpy(line, data, length);
    const bcop_status status = bcop_config_set(config, line);
    require(status == BCOP_OK || status == BCOP_CONFIG);
    walk(bcop_config_root(config), 0);
    free(line);
    bcop_config_free(config);
    return 0;
}
