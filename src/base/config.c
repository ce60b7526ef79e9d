#include "base/config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <yaml.h>

enum {
    BYTES_MAX = 1 << 20,
    DEPTH_MAX = 8,
    /* Every node keeps its whole path, so what a file of 1 MiB can make us allocate is bounded by
     * these two. */
    KEY_MAX = 64,
    NODES_MAX = 10000,
    CHUNK_BYTES = 32 * 1024
};

static const char SET[] = "--set";

typedef struct chunk {
    struct chunk *next;
    size_t used, size;
    _Alignas(max_align_t) unsigned char bytes[];
} chunk;

struct bcop_config {
    bcop_node *root;
    chunk *chunks; /* owned: everything the nodes consist of */
    int nodes;
};

/* One libyaml event that has passed the checks, so that nothing of libyaml's needs to be freed. */
typedef struct token {
    yaml_event_type_t type;
    int line, column;
    const char *text;
    bool quoted;
} token;

typedef struct reader {
    bcop_config *config;
    yaml_parser_t parser;
    const char *origin; /* SET: the text is the value of an assignment */
    const char *yaml;
    size_t length;
    size_t byte, character; /* the same place in `yaml`, counted in both ways */
} reader;

/* ---- memory ---- */

static bcop_status out_of_memory(void) {
    return bcop_status_fail(BCOP_INTERNAL, "out of memory while reading the configuration");
}

/* Zeroed memory that lives as long as the config; NULL when there is none. */
static void *take(bcop_config *config, size_t bytes) {
    const size_t unit = _Alignof(max_align_t);
    bytes = (bytes + unit - 1) / unit * unit;
    chunk *c = config->chunks;
    if (!c || c->size - c->used < bytes) {
        const size_t size = bytes > CHUNK_BYTES ? bytes : CHUNK_BYTES;
        c = calloc(1, sizeof *c + size);
        if (!c)
            return NULL;
        c->size = size;
        c->next = config->chunks;
        config->chunks = c;
    }
    void *piece = c->bytes + c->used;
    c->used += bytes;
    return piece;
}

static char *copy(bcop_config *config, const char *text, size_t length) {
    char *made = take(config, length + 1);
    if (made)
        memcpy(made, text, length);
    return made;
}

/* The path of the child `key`, or of element `index` when key is NULL. */
static char *join(bcop_config *config, const char *path, const char *key, int index) {
    const size_t size = strlen(path) + (key ? strlen(key) : 12) + 3;
    char *made = take(config, size);
    if (made && key)
        snprintf(made, size, "%s%s%s", path, *path ? "." : "", key);
    else if (made)
        snprintf(made, size, "%s[%d]", path, index);
    return made;
}

/* ---- messages ---- */

static bcop_status fail(const bcop_node *node, const char *format, va_list args) {
    char text[1024], line[1200];
    vsnprintf(text, sizeof text, format, args);
    const char *gap = *node->path ? ": " : "";
    if (node->line > 0)
        snprintf(line, sizeof line, "%s:%d:%d: %s%s%s", node->origin, node->line, node->column,
                 node->path, gap, text);
    else
        snprintf(line, sizeof line, "%s %s%s%s", node->origin, node->path, gap, text);
    /* What a stranger's file says must not drive the terminal. */
    for (char *c = line; *c; c++)
        if ((unsigned char)*c < ' ' || *c == 0x7f)
            *c = '?';
    return bcop_status_fail(BCOP_CONFIG, "%s", line);
}

bcop_status bcop_config_fail(const bcop_node *node, const char *format, ...) {
    va_list args;
    va_start(args, format);
    const bcop_status status = fail(node, format, args);
    va_end(args);
    return status;
}

/* The same for a place that has no node yet. */
__attribute__((format(printf, 5, 6))) static bcop_status
fail_at(const reader *r, int line, int column, const char *path, const char *format, ...) {
    const bool set = r->origin == SET;
    const bcop_node place = {
        .origin = r->origin, .line = set ? 0 : line, .column = set ? 0 : column, .path = path};
    va_list args;
    va_start(args, format);
    const bcop_status status = fail(&place, format, args);
    va_end(args);
    return status;
}

__attribute__((format(printf, 2, 3))) static bcop_status fail_set(const char *path,
                                                                  const char *format, ...) {
    const bcop_node place = {.origin = SET, .path = path};
    va_list args;
    va_start(args, format);
    const bcop_status status = fail(&place, format, args);
    va_end(args);
    return status;
}

/* The line and column of a byte. */
static void locate(const reader *r, size_t offset, int *line, int *column) {
    *line = *column = 1;
    for (size_t i = 0; i < offset && i < r->length; i++) {
        const unsigned char c = (unsigned char)r->yaml[i];
        *column = c == '\n' ? 1 : *column + ((c & 0xC0) != 0x80);
        *line += c == '\n';
    }
}

static bcop_status library_error(const reader *r, const char *path) {
    const yaml_parser_t *p = &r->parser;
    if (p->error == YAML_MEMORY_ERROR)
        return out_of_memory();
    int line = (int)p->problem_mark.line + 1, column = (int)p->problem_mark.column + 1;
    if (p->error == YAML_READER_ERROR) /* bytes that are no text: libyaml knows only their offset */
        locate(r, p->problem_offset, &line, &column);
    return fail_at(r, line, column, r->origin == SET ? path : "", "%s%s%s%s", p->problem,
                   p->context ? " (" : "", p->context ? p->context : "", p->context ? ")" : "");
}

/* ---- reading ---- */

/* True if the text at this place starts with '!'. libyaml drops the tag `!` from scalars, but still
 * lets them begin there, where a plain scalar cannot. Places only grow, so this scans once. */
static bool tag_at(reader *r, size_t character) {
    while (r->byte < r->length && r->character < character) {
        r->byte++;
        while (r->byte < r->length && ((unsigned char)r->yaml[r->byte] & 0xC0) == 0x80)
            r->byte++;
        r->character++;
    }
    return r->byte < r->length && r->yaml[r->byte] == '!';
}

static bcop_status check(reader *r, const yaml_event_t *event, const char *path, token *t) {
    const yaml_char_t *anchor = NULL, *tag = NULL;
    const char *what = NULL;
    if (event->type == YAML_SCALAR_EVENT) {
        anchor = event->data.scalar.anchor;
        tag = event->data.scalar.tag;
    } else if (event->type == YAML_SEQUENCE_START_EVENT) {
        anchor = event->data.sequence_start.anchor;
        tag = event->data.sequence_start.tag;
    } else if (event->type == YAML_MAPPING_START_EVENT) {
        anchor = event->data.mapping_start.anchor;
        tag = event->data.mapping_start.tag;
    } else if (event->type == YAML_ALIAS_EVENT) {
        what = "an alias (*) is not allowed; a text that begins with * needs quotes";
    }
    if (anchor)
        what = "an anchor (&) is not allowed; a text that begins with & needs quotes";
    else if (tag || (event->type == YAML_SCALAR_EVENT && tag_at(r, event->start_mark.index)))
        what = "a tag (!) is not allowed; a text that begins with ! needs quotes";
    if (!what && event->type == YAML_SCALAR_EVENT) {
        const char *value = (const char *)event->data.scalar.value;
        const size_t length = event->data.scalar.length;
        if (memchr(value, 0, length))
            what = "a NUL character is not allowed";
        t->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
        t->text = copy(r->config, value, length);
        if (!t->text)
            return out_of_memory();
    }
    return what ? fail_at(r, t->line, t->column, path, "%s", what) : BCOP_OK;
}

static bcop_status next(reader *r, const char *path, token *t) {
    yaml_event_t event;
    if (!yaml_parser_parse(&r->parser, &event))
        return library_error(r, path);
    *t = (token){.type = event.type,
                 .line = (int)event.start_mark.line + 1,
                 .column = (int)event.start_mark.column + 1};
    const bcop_status status = check(r, &event, path, t);
    yaml_event_delete(&event);
    return status;
}

/* A scalar without text, to be filled. */
static bcop_status make(bcop_config *config, const bcop_node *place, bcop_node **node) {
    if (config->nodes >= NODES_MAX)
        return bcop_config_fail(place, "more than %d values", NODES_MAX);
    *node = take(config, sizeof **node);
    if (!*node || !place->path)
        return out_of_memory();
    **node = *place;
    (*node)->text = "";
    config->nodes++;
    return BCOP_OK;
}

/* The room for children is the next power of two, so it is full exactly when the count is one. */
static bcop_status append(bcop_config *config, bcop_node *parent, bcop_node *child) {
    const int n = parent->count;
    if ((n & (n - 1)) == 0) {
        bcop_node **more = take(config, (n ? 2 * (size_t)n : 1) * sizeof(bcop_node *));
        if (!more)
            return out_of_memory();
        for (int i = 0; i < n; i++)
            more[i] = parent->child[i];
        parent->child = more;
    }
    parent->child[parent->count++] = child;
    return BCOP_OK;
}

static bcop_status build(reader *r, const token *t, bcop_node *node, int depth);

static bcop_status build_list(reader *r, bcop_node *list, int depth) {
    const bool set = r->origin == SET;
    for (;;) {
        token t;
        BCOP_TRY(next(r, list->path, &t));
        if (t.type == YAML_SEQUENCE_END_EVENT)
            return BCOP_OK;
        const bcop_node place = {.origin = r->origin,
                                 .line = set ? 0 : t.line,
                                 .column = set ? 0 : t.column,
                                 .path = join(r->config, list->path, NULL, list->count)};
        bcop_node *child;
        BCOP_TRY(make(r->config, &place, &child));
        BCOP_TRY(append(r->config, list, child));
        BCOP_TRY(build(r, &t, child, depth));
    }
}

static bcop_status build_map(reader *r, bcop_node *map, int depth) {
    const bool set = r->origin == SET;
    for (;;) {
        token key, value;
        BCOP_TRY(next(r, map->path, &key));
        if (key.type == YAML_MAPPING_END_EVENT)
            return BCOP_OK;
        if (key.type != YAML_SCALAR_EVENT)
            return fail_at(r, key.line, key.column, map->path, "a key must not be a list or a map");
        if (strlen(key.text) > KEY_MAX)
            return fail_at(r, key.line, key.column, map->path, "a key is longer than %d bytes",
                           KEY_MAX);
        const bcop_node place = {.origin = r->origin,
                                 .line = set ? 0 : key.line,
                                 .column = set ? 0 : key.column,
                                 .path = join(r->config, map->path, key.text, 0),
                                 .key = key.text};
        bcop_node *child;
        const bcop_node *twin = bcop_config_find(map, key.text);
        BCOP_TRY(make(r->config, &place, &child));
        if (twin && set)
            return bcop_config_fail(child, "given twice");
        if (twin)
            return bcop_config_fail(child, "given twice (first in line %d)", twin->line);
        BCOP_TRY(append(r->config, map, child));
        BCOP_TRY(next(r, child->path, &value));
        BCOP_TRY(build(r, &value, child, depth));
    }
}

/* Fills `node`, which lies inside `depth` lists and maps. */
static bcop_status build(reader *r, const token *t, bcop_node *node, int depth) {
    if (t->type == YAML_SCALAR_EVENT) {
        node->text = t->text;
        node->quoted = t->quoted;
        return BCOP_OK;
    }
    if (depth >= DEPTH_MAX)
        return fail_at(r, t->line, t->column, node->path, "nested deeper than %d", DEPTH_MAX);
    node->text = NULL;
    node->type = t->type == YAML_SEQUENCE_START_EVENT ? BCOP_NODE_LIST : BCOP_NODE_MAP;
    return node->type == BCOP_NODE_LIST ? build_list(r, node, depth + 1)
                                        : build_map(r, node, depth + 1);
}

/* Directives are refused before libyaml sees them, because its time grows with the square of their
 * number. They begin with % after any of YAML's line breaks. */
static bcop_status check_directives(const reader *r, const char *path) {
    static const char *const breaks[] = {"\n", "\r", "\xC2\x85", "\xE2\x80\xA8", "\xE2\x80\xA9"};
    const int kinds = (int)(sizeof breaks / sizeof *breaks);
    for (size_t i = 0; i < r->length; i++) {
        bool starts = r->yaml[i] == '%' && i == 0;
        for (int k = 0; r->yaml[i] == '%' && k < kinds; k++) {
            const size_t n = strlen(breaks[k]);
            starts = starts || (i >= n && memcmp(r->yaml + i - n, breaks[k], n) == 0);
        }
        if (starts) {
            int line, column;
            locate(r, i, &line, &column);
            return fail_at(r, line, column, path, "a line must not begin with %%");
        }
    }
    return BCOP_OK;
}

/* Reads the one document into `top`; an empty one leaves it the empty scalar it is. */
static bcop_status read_document(reader *r, bcop_node *top, int depth) {
    token t;
    BCOP_TRY(next(r, top->path, &t)); /* the stream's start */
    BCOP_TRY(next(r, top->path, &t));
    if (t.type == YAML_STREAM_END_EVENT)
        return BCOP_OK;
    BCOP_TRY(next(r, top->path, &t));
    if (r->origin != SET) {
        top->line = t.line;
        top->column = t.column;
    }
    BCOP_TRY(build(r, &t, top, depth));
    BCOP_TRY(next(r, top->path, &t)); /* the document's end */
    BCOP_TRY(next(r, top->path, &t));
    if (t.type != YAML_STREAM_END_EVENT)
        return fail_at(r, t.line, t.column, top->path, "more than one document");
    return BCOP_OK;
}

static bcop_status read_text(bcop_config *config, const char *yaml, size_t length, bcop_node *top,
                             int depth) {
    reader r = {.config = config, .origin = top->origin, .yaml = yaml, .length = length};
    if (length > BYTES_MAX)
        return fail_at(&r, 1, 1, top->path, "larger than 1 MiB (%zu bytes)", length);
    BCOP_TRY(check_directives(&r, top->path));
    if (!yaml_parser_initialize(&r.parser))
        return out_of_memory();
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)(length ? yaml : ""), length);
    const bcop_status status = read_document(&r, top, depth);
    yaml_parser_delete(&r.parser);
    return status;
}

static bool is_empty(const bcop_node *node) {
    return node->type == BCOP_NODE_SCALAR && !*node->text && !node->quoted;
}

static bcop_status read_root(bcop_config *config, const char *yaml, size_t length,
                             const char *origin) {
    const bcop_node place = {.origin = copy(config, origin, strlen(origin)),
                             .line = 1,
                             .column = 1,
                             .path = copy(config, "", 0)};
    if (!place.origin)
        return out_of_memory();
    BCOP_TRY(make(config, &place, &config->root));
    BCOP_TRY(read_text(config, yaml, length, config->root, 0));
    if (is_empty(config->root))
        return bcop_config_fail(config->root, "the configuration is empty");
    if (config->root->type != BCOP_NODE_MAP)
        return bcop_config_fail(config->root, "the top level must be a map of keys to values");
    return BCOP_OK;
}

bcop_status bcop_config_parse(const char *yaml, size_t length, const char *origin,
                              bcop_config **config) {
    bcop_config *made = calloc(1, sizeof *made);
    *config = NULL;
    if (!made)
        return out_of_memory();
    const bcop_status status = read_root(made, yaml, length, origin);
    if (status == BCOP_OK)
        *config = made;
    else
        bcop_config_free(made);
    return status;
}

const bcop_node *bcop_config_root(const bcop_config *config) {
    return config->root;
}

void bcop_config_free(bcop_config *config) {
    if (!config)
        return;
    for (chunk *c = config->chunks; c;) {
        chunk *following = c->next;
        free(c);
        c = following;
    }
    free(config);
}

/* ---- assignments ---- */

/* One step down, to a key or (key NULL) an element; `path` leads to the node it reaches. */
typedef struct step {
    const char *key;
    int index;
    const char *path;
} step;

static bcop_status read_step(bcop_config *config, const char **text, const step *before, step *s) {
    const char *p = *text;
    if (*p == '[' && before) {
        const size_t digits = strspn(p + 1, "0123456789");
        if (digits == 0 || digits > 6 || p[1 + digits] != ']')
            return BCOP_CONFIG;
        s->index = atoi(p + 1);
        p += digits + 2;
    } else {
        if (before && *p++ != '.')
            return BCOP_CONFIG;
        const size_t length = strcspn(p, ".[]=");
        if (length == 0 || length > KEY_MAX)
            return BCOP_CONFIG;
        s->key = copy(config, p, length);
        if (!s->key)
            return out_of_memory();
        p += length;
    }
    *text = p;
    s->path = join(config, before ? before->path : "", s->key, s->index);
    return s->path ? BCOP_OK : out_of_memory();
}

/* Appends the value below `map`, which lacks the first step's key. */
static bcop_status add(bcop_config *config, bcop_node *map, const step s[], int steps,
                       bcop_node *value) {
    for (int i = 1; i < steps; i++)
        if (!s[i].key)
            return fail_set(s[steps - 1].path, "there is no list %s", s[i - 1].path);
    for (int i = 0; i < steps; i++) {
        bcop_node *child = value;
        if (i < steps - 1) {
            const bcop_node place = {.origin = SET, .path = s[i].path, .key = s[i].key};
            BCOP_TRY(make(config, &place, &child));
        }
        map->type = BCOP_NODE_MAP; /* it may have been an empty scalar, `maxmin:` */
        map->text = NULL;
        BCOP_TRY(append(config, map, child));
        map = child;
    }
    return BCOP_OK;
}

static bcop_status put(bcop_config *config, const step s[], int steps, bcop_node *value) {
    const char *full = s[steps - 1].path;
    bcop_node **slot = &config->root;
    for (int i = 0; i < steps; i++) {
        bcop_node *node = *slot;
        if (s[i].key) {
            if (node->type != BCOP_NODE_MAP && !is_empty(node))
                return fail_set(full, "%s is not a map", node->path);
            int c = 0;
            while (c < node->count && strcmp(node->child[c]->key, s[i].key) != 0)
                c++;
            if (c == node->count)
                return add(config, node, s + i, steps - i, value);
            slot = &node->child[c];
        } else {
            if (node->type != BCOP_NODE_LIST)
                return fail_set(full, "%s is not a list", node->path);
            if (s[i].index >= node->count)
                return fail_set(full, "%s has %d element%s, counted from 0", node->path,
                                node->count, node->count == 1 ? "" : "s");
            slot = &node->child[s[i].index];
        }
    }
    *slot = value;
    return BCOP_OK;
}

bcop_status bcop_config_set(bcop_config *config, const char *assignment) {
    const char *equals = strchr(assignment, '=');
    if (!equals)
        return fail_set(assignment, "must have the form key.path=value");
    step s[DEPTH_MAX] = {{0}};
    int steps = 0;
    const char *p = assignment;
    while (p < equals || steps == 0) {
        const bcop_status status =
            steps == DEPTH_MAX ? BCOP_CONFIG
                               : read_step(config, &p, steps ? &s[steps - 1] : NULL, &s[steps]);
        if (status == BCOP_CONFIG)
            return fail_set(assignment, "the part before = must be a path such as "
                                        "train.batch or model[2].conv.kernel");
        BCOP_TRY(status);
        steps++;
    }
    const step *last = &s[steps - 1];
    const bcop_node place = {.origin = SET, .path = last->path, .key = last->key};
    bcop_node *value;
    BCOP_TRY(make(config, &place, &value));
    BCOP_TRY(read_text(config, equals + 1, strlen(equals + 1), value, steps));
    if (value->type == BCOP_NODE_MAP)
        return fail_set(last->path, "the value must be a scalar or a list, not a map");
    return put(config, s, steps, value);
}

/* ---- looking up ---- */

const bcop_node *bcop_config_find(const bcop_node *map, const char *key) {
    if (map && map->type == BCOP_NODE_MAP)
        for (int i = 0; i < map->count; i++)
            if (strcmp(map->child[i]->key, key) == 0)
                return map->child[i];
    return NULL;
}

static int least(int a, int b) {
    return a < b ? a : b;
}

/* Letters inserted, deleted, changed or swapped with their neighbour to turn a into b; both of at
 * most KEY_MAX letters. */
static int distance(const char *a, const char *b) {
    int d[KEY_MAX + 1][KEY_MAX + 1];
    const int m = (int)strlen(a), n = (int)strlen(b);
    for (int i = 0; i <= m; i++)
        for (int j = 0; j <= n; j++) {
            if (i == 0 || j == 0) {
                d[i][j] = i + j;
                continue;
            }
            d[i][j] = least(d[i - 1][j - 1] + (a[i - 1] != b[j - 1]),
                            least(d[i - 1][j], d[i][j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                d[i][j] = least(d[i][j], d[i - 2][j - 2] + 1);
        }
    return d[m][n];
}

const char *bcop_config_suggest(const char *word, const char *const candidates[]) {
    const size_t length = strlen(word);
    if (length < 2 || length > KEY_MAX)
        return NULL;
    int best = length < 6 ? 1 : (int)length / 3;
    const char *found = NULL;
    for (; *candidates; candidates++) {
        if (strlen(*candidates) > KEY_MAX)
            continue;
        const int d = distance(word, *candidates);
        if (d < best || (d == best && !found)) {
            best = d;
            found = *candidates;
        }
    }
    return found;
}
