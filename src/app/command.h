/* The program's subcommands: each is one file and one line in command.c. */
#ifndef BCOP_APP_COMMAND_H
#define BCOP_APP_COMMAND_H

#include "base/status.h"

#include <stdbool.h>

typedef struct bcop_command {
    const char *name;
    const char *usage; /* what follows `bcop <name>` */
    const char *help;  /* one sentence */
    /* argv[0] is the command's name. The status is the exit code; its message has not been printed.
     * *speaker is false on the ranks that are not to print it. */
    bcop_status (*run)(int argc, char **argv, bool *speaker);
} bcop_command;

extern const bcop_command bcop_command_train, bcop_command_eval, bcop_command_certify,
    bcop_command_inspect, bcop_command_reference;

/* The program: finds the subcommand, runs it, prints the error line if any, returns the exit code.
 */
int bcop_command_main(int argc, char **argv);

#endif
