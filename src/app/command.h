/* The program's subcommands: each is one file and one line in command.c. */
#ifndef BCOP_APP_COMMAND_H
#define BCOP_APP_COMMAND_H

#include "comm/comm.h"

typedef struct bcop_command {
    const char *name;
    const char *usage; /* what follows `bcop <name>` */
    const char *help;  /* one sentence */
    /* argv[0] is the command's name. The status is the exit code, the same on every rank; the
     * caller prints its message. Collective; `comm` is NULL for commands that do not use MPI. */
    bcop_status (*run)(const bcop_comm *comm, int argc, char **argv);
    bool uses_mpi;
} bcop_command;

extern const bcop_command bcop_command_train, bcop_command_eval, bcop_command_certify,
    bcop_command_attack, bcop_command_predict, bcop_command_inspect, bcop_command_export,
    bcop_command_plan, bcop_command_status, bcop_command_stop, bcop_command_plot,
    bcop_command_bench, bcop_command_reference;

/* The program: finds the subcommand, runs it, prints the error line if any, returns the exit code.
 */
int bcop_command_main(int argc, char **argv);

#endif
