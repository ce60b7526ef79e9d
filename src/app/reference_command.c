#include "app/command.h"
#include "train/reference.h"

static bcop_status run(const bcop_comm *comm, int argc, char **argv) {
    (void)argv;
    (void)comm;
    if (argc > 1)
        return bcop_status_fail(BCOP_USAGE, "reference takes no arguments");
    bcop_reference_write(stdout);
    return BCOP_OK;
}

const bcop_command bcop_command_reference = {
    .name = "reference",
    .usage = "",
    .help = "every configuration key with default, range and meaning",
    .run = run,
};
