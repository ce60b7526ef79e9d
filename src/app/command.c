#include "app/command.h"

#include "app/version.h"
#include "base/config.h"
#include "base/log.h"
#include "linalg/product.h"

#include <stdio.h>
#include <string.h>

static const bcop_command *const commands[] = {
    &bcop_command_train,   &bcop_command_eval,      &bcop_command_certify,
    &bcop_command_inspect, &bcop_command_reference, NULL,
};

static void print_help(FILE *out) {
    fputs("usage: bcop COMMAND ...      (alone, or under mpirun or srun)\n\n", out);
    for (int i = 0; commands[i]; i++)
        fprintf(out, "  bcop %s %s\n      %s\n", commands[i]->name, commands[i]->usage,
                commands[i]->help);
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

int bcop_command_main(int argc, char **argv) {
    bool speaker = true;
    bcop_status status;
    bcop_product_threads(1); /* more ranks beat more threads; --threads of the launcher overrides */
    if (argc < 2) {
        status = bcop_status_fail(BCOP_USAGE, "a command is needed; see bcop --help");
    } else if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
        print_help(stdout);
        return BCOP_OK;
    } else if (strcmp(argv[1], "--version") == 0) {
        bcop_version_print(stdout);
        return BCOP_OK;
    } else {
        const bcop_command *command = NULL;
        for (int i = 0; commands[i] && !command; i++)
            if (strcmp(argv[1], commands[i]->name) == 0)
                command = commands[i];
        status = command ? command->run(argc - 1, argv + 1, &speaker) : unknown(argv[1]);
    }
    if (status != BCOP_OK && speaker) {
        bcop_log_speak(true);
        if (status == BCOP_INTERRUPTED || status == BCOP_STOPPED)
            bcop_log_info("%s", bcop_status_message());
        else
            bcop_log_error("%s", bcop_status_message());
    }
    return (int)status;
}
