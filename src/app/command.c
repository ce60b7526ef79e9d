#include "app/command.h"

#include "app/version.h"
#include "base/config.h"
#include "base/fault.h"
#include "base/log.h"
#include "linalg/product.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const bcop_command *const commands[] = {
    &bcop_command_train,     &bcop_command_eval,
    &bcop_command_certify,   &bcop_command_attack,
    &bcop_command_predict,   &bcop_command_inspect,
    &bcop_command_export,    &bcop_command_plan,
    &bcop_command_status,    &bcop_command_stop,
    &bcop_command_plot,      &bcop_command_bench,
    &bcop_command_reference, NULL,
};

static bool is_help(const char *text) {
    return strcmp(text, "--help") == 0 || strcmp(text, "-h") == 0;
}

static void print_usage(const bcop_command *command, FILE *out) {
    fprintf(out, "  bcop %s %s\n      %s\n", command->name, command->usage, command->help);
}

static void print_help(FILE *out) {
    fputs("usage: bcop COMMAND ...      (alone, or under mpirun or srun)\n\n", out);
    for (int i = 0; commands[i]; i++)
        print_usage(commands[i], out);
    fputs("  bcop --version\n      versions of everything that matters\n", out);
}

static bcop_status unknown(const char *name) {
    const char *names[32] = {0};
    for (int i = 0; commands[i]; i++)
        names[i] = commands[i]->name;
    const char *near = bcop_config_suggest(name, names);
    return bcop_status_fail(BCOP_USAGE, "unknown command '%s'%s%s%s; see bcop --help", name,
                            near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static void report(bcop_status status) {
    if (status == BCOP_INTERRUPTED || status == BCOP_STOPPED)
        bcop_log_info("%s", bcop_status_message());
    else if (status != BCOP_OK)
        bcop_log_error("%s", bcop_status_message());
}

/* Runs a command between the start and the end of MPI. The message goes out before the end: mpirun
   kills the other ranks as soon as one has left with an error. */
static bcop_status run_on_ranks(const bcop_command *command, int argc, char **argv) {
    if (!getenv("OPENBLAS_NUM_THREADS") && !getenv("OMP_NUM_THREADS"))
        bcop_product_threads(1); /* more ranks beat more threads */
    bcop_comm comm;
    bcop_status status = bcop_comm_open(&comm);
    if (status == BCOP_OK) {
        bcop_log_speak(comm.rank == 0);
        status = bcop_comm_agree(&comm, bcop_fault_open(comm.rank));
        if (status == BCOP_OK)
            status = command->run(&comm, argc, argv);
        report(status);
        bcop_comm_close(&comm);
    } else {
        report(status);
    }
    return status;
}

static bcop_status run_alone(int argc, char **argv) {
    if (argc < 2)
        return bcop_status_fail(BCOP_USAGE, "a command is needed; see bcop --help");
    if (is_help(argv[1]))
        print_help(stdout);
    else if (strcmp(argv[1], "--version") == 0)
        bcop_version_print(stdout);
    else
        return unknown(argv[1]);
    return BCOP_OK;
}

/* Whether mpirun or srun started this process and it is not the first: what MPI would say. */
static bool is_another_rank(void) {
    static const char *const names[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"};
    for (int i = 0; i < 3; i++) {
        const char *rank = getenv(names[i]);
        if (rank)
            return strcmp(rank, "0") != 0;
    }
    return false;
}

int bcop_command_main(int argc, char **argv) {
    const bcop_command *command = NULL;
    for (int i = 0; argc > 1 && commands[i] && !command; i++)
        if (strcmp(argv[1], commands[i]->name) == 0)
            command = commands[i];
    if (command && argc == 3 && is_help(argv[2])) {
        print_usage(command, stdout);
        return BCOP_OK;
    }
    if (command && command->uses_mpi)
        return (int)run_on_ranks(command, argc - 1, argv + 1);
    if (command && is_another_rank())
        return BCOP_OK; /* one answer is enough */
    const bcop_status status =
        command ? command->run(NULL, argc - 1, argv + 1) : run_alone(argc, argv);
    report(status);
    return (int)status;
}
