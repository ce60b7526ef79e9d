/* Option tables: every configurable thing (a config section, a layer, a loss, a dataset, an
 * optimizer) describes its keys in one table; reading, checking, printing and the reference come
 * from the table.
 *
 *     typedef struct dense_options { int units; bool bias; } dense_options;
 *     static const bcop_option dense_table[] = {
 *         {.key = "units", .type = BCOP_OPTION_INT, .offset = offsetof(dense_options, units),
 *          .min = 1, .max = 65536, .help = "outputs"},
 *         {.key = "bias", .type = BCOP_OPTION_BOOL, .offset = offsetof(dense_options, bias),
 *          .fallback = "true", .help = "add a bias"},
 *         {0},
 *     };
 */
#ifndef BCOP_BASE_OPTION_H
#define BCOP_BASE_OPTION_H

#include "base/config.h"

#include <stdio.h>

enum { BCOP_TEXT_MAX = 512, BCOP_REALS_MAX = 32, BCOP_TEXTS_MAX = 16 };

typedef enum bcop_option_type {
    BCOP_OPTION_INT,    /* int */
    BCOP_OPTION_LONG,   /* long */
    BCOP_OPTION_REAL,   /* double; decimal or fraction ("36/255") */
    BCOP_OPTION_BOOL,   /* bool; true or false */
    BCOP_OPTION_TEXT,   /* char[BCOP_TEXT_MAX] */
    BCOP_OPTION_CHOICE, /* int, the index in `choices` */
    BCOP_OPTION_REALS,  /* bcop_reals: a list of reals; the texts are kept as typed */
    BCOP_OPTION_TEXTS   /* bcop_texts: a list of strings */
} bcop_option_type;

typedef struct bcop_reals {
    int count;
    double value[BCOP_REALS_MAX];
    char text[BCOP_REALS_MAX][32]; /* each as typed, e.g. "36/255" */
} bcop_reals;

typedef struct bcop_texts {
    int count;
    char text[BCOP_TEXTS_MAX][BCOP_TEXT_MAX];
} bcop_texts;

typedef struct bcop_option {
    const char *key; /* NULL ends a table */
    bcop_option_type type;
    size_t offset;        /* of the value in the target struct */
    double min, max;      /* closed range of numbers and of list elements; 0, 0: any finite number
                             (with open_min: any above 0); INFINITY: no bound on that side */
    bool open_min;        /* min itself is excluded */
    bool empty;           /* a list or text may be empty; else lists have 1 .. capacity elements */
    const char *choices;  /* CHOICE: "none|flip|crop" */
    const char *fallback; /* default as YAML text; NULL: the key is required */
    const char *unit;     /* "minutes", "pixels"; NULL: none */
    const char *help;     /* one sentence, no full stop */
} bcop_option;

/* A table and the struct it fills. A section may have several parts, e.g. the common keys and those
 * of its `kind`. */
typedef struct bcop_options {
    const bcop_option *table;
    void *target;
} bcop_options;

/* Reads the map `section` into the parts' targets: every key must be known to one part (else
 * "unknown key, did you mean ..."), have the right type and lie in its range; missing keys take
 * their fallback; a missing required key is an error at the map's place. `section` may be NULL or
 * an empty scalar (`maxmin:`) when nothing is required: `name` then stands for the section in
 * messages, and `parent` (never NULL) for its place. Local. */
bcop_status bcop_option_read(const bcop_node *section, const bcop_node *parent, const char *name,
                             int parts, const bcop_options part[]);

/* Fills one target with its table's fallbacks (required keys are left as they are). Local. */
void bcop_option_default(bcop_options part);

/* Writes the values as one flow map `{key: value, ...}` that reads back to the same values (reals
 * with as many digits as that takes, texts quoted when they need it). Local. */
void bcop_option_write(FILE *out, int parts, const bcop_options part[]);

/* Writes one value as YAML, as bcop_option_write does. Local. */
void bcop_option_write_value(FILE *out, const bcop_option *option, const void *target);

/* The first option whose values differ between `a` and `b` (structs that `table` describes), or
 * NULL. Local. */
const bcop_option *bcop_option_differs(const bcop_option *table, const void *a, const void *b);

/* Writes the reference of one table: per key one line `key: default   # type, range, unit. help`,
 * indented by `indent` spaces, required keys as `key: REQUIRED`. Valid YAML. Local. */
void bcop_option_reference(FILE *out, int indent, const bcop_option *table);

/* Reads a decimal or a fraction of decimals, e.g. "0.5" or "36/255", whole text, finite, parts of
 * fractions 0 or not below 1e-307. A decimal gives the nearest double, a fraction is off by at most
 * three roundings. False when it is none. Local. */
bool bcop_option_parse_real(const char *text, double *value);

#endif
