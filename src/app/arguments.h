/* Command lines: options in any order, values as `--key value` or `--key=value`. */
#ifndef BCOP_APP_ARGUMENTS_H
#define BCOP_APP_ARGUMENTS_H

#include "base/option.h"

#include <stdbool.h>

enum { BCOP_SETS_MAX = 64 };

typedef struct bcop_argument {
    const char *name;   /* "--run"; NULL ends the list */
    const char **value; /* where its value goes; NULL for a flag */
    bool *flag;
    const char **list; /* repeatable: [BCOP_SETS_MAX], ended by NULL */
} bcop_argument;

/* Fills the options and `*positional` (exactly one is wanted, called `what` in messages).
 * BCOP_USAGE. Local. */
bcop_status bcop_arguments_read(int argc, char **argv, const bcop_argument options[],
                                const char *what, const char **positional);

/* The same for `least` to `most` positionals, of which the first are called what[least]. Local. */
bcop_status bcop_arguments_read_list(int argc, char **argv, const bcop_argument options[],
                                     int least, const char *const what[], int most,
                                     const char *positional[], int *count);

/* A whole number >= 0. BCOP_USAGE naming the option. Local. */
bcop_status bcop_arguments_count(const char *option, const char *text, long *value);

/* A whole number from `least` to `most`; text NULL: the option was not given, and *value stays.
 * BCOP_USAGE naming the option. Local. */
bcop_status bcop_arguments_number(const char *option, const char *text, int least, int most,
                                  int *value);

/* The value of --eps, "36/255,0.5": radii >= 0 with their texts as typed. BCOP_USAGE. Local. */
bcop_status bcop_arguments_eps(const char *text, bcop_reals *eps);

#endif
