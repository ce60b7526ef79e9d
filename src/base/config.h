/* YAML configuration: a checked tree whose every node knows where it stands in which file.
 *
 * Read with libyaml under the rules for input from strangers: UTF-8, at most 1 MiB, depth 8, 10,000
 * values and 64 bytes per key; aliases, anchors, tags, directives, duplicate keys, keys that are no
 * scalars and more than one document are refused. The top level is a map.
 * Meaning comes later, from option tables (option.h). */
#ifndef BCOP_BASE_CONFIG_H
#define BCOP_BASE_CONFIG_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>

typedef enum bcop_node_type { BCOP_NODE_SCALAR, BCOP_NODE_LIST, BCOP_NODE_MAP } bcop_node_type;

/* One value. Nodes belong to their bcop_config and live as long as it does. Read-only for users. */
typedef struct bcop_node {
    bcop_node_type type;
    const char *origin; /* file name as the user gave it, or "--set" */
    int line, column;   /* from 1; of the key if there is one, else of the value; 0 for --set */
    const char *path;   /* "model[2].conv.kernel"; "" for the root */
    const char *key;    /* the last key of the path when the parent is a map, else NULL */
    const char *text;   /* scalar: its text, unquoted; else NULL */
    bool quoted;        /* scalar: written in quotes, so a string whatever it looks like */
    int count;          /* list, map: number of children */
    struct bcop_node **child; /* [count]; a map's children carry their keys, in file order */
} bcop_node;

typedef struct bcop_config bcop_config;

/* Parses `length` bytes of YAML; `origin` names them in error lines. On success *config is the
 * caller's, to be given to bcop_config_free. BCOP_CONFIG with `origin:line:column: text` otherwise.
 * Local. */
bcop_status bcop_config_parse(const char *yaml, size_t length, const char *origin,
                              bcop_config **config);

/* Applies `key.path=value`: the value is a YAML scalar or flow list (`[0.3,1.58]`), the path may
 * index lists (`model[2].conv.kernel`, counted from 0). Replaces an existing node or adds a key to
 * an existing map (maps on the way are created; list elements must exist). Errors: BCOP_CONFIG,
 * `--set key.path: text`, and the config is as it was. Local. */
bcop_status bcop_config_set(bcop_config *config, const char *assignment);

const bcop_node *bcop_config_root(const bcop_config *config);

void bcop_config_free(bcop_config *config); /* NULL is allowed */

/* The child of a map with this key; NULL if it has none, or if `map` is NULL or no map. Local. */
const bcop_node *bcop_config_find(const bcop_node *map, const char *key);

/* Stores `origin:line:column: path: text` (for --set: `--set path: text`), control characters shown
 * as '?', and returns BCOP_CONFIG. Every complaint about a value goes through here. Local. */
bcop_status bcop_config_fail(const bcop_node *node, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* The candidate nearest to `word` by edit distance (a swap of neighbours counts once) when it is
 * near enough to be a slip (at most a third of the word, at least one letter), else NULL.
 * `candidates` ends with NULL. Local. */
const char *bcop_config_suggest(const char *word, const char *const candidates[]);

#endif
