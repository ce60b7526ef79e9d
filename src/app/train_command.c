#include "app/arguments.h"
#include "app/command.h"
#include "app/configuration.h"
#include "base/clock.h"
#include "train/profile.h"
#include "train/trainer.h"

#include <string.h>

typedef struct arguments {
    const char *config, *run, *resume, *init_from, *max_steps, *max_time, *profile;
    const char *set[BCOP_SETS_MAX];
    bool dry_run;
} arguments;

static bcop_status read_request(const arguments *a, bcop_train_request *r) {
    *r = (bcop_train_request){
        .run = a->run, .init_from = a->init_from, .max_steps = -1, .dry_run = a->dry_run};
    if (a->max_steps)
        BCOP_TRY(bcop_arguments_count("--max-steps", a->max_steps, &r->max_steps));
    if (a->max_time)
        BCOP_TRY(bcop_clock_duration(a->max_time, &r->max_seconds));
    if (a->max_time && r->max_seconds == 0)
        return bcop_status_fail(BCOP_USAGE, "--max-time: '%s' leaves no time", a->max_time);
    if (!a->resume || strcmp(a->resume, "auto") == 0) {
        r->resume = BCOP_RESUME_AUTO;
    } else if (strcmp(a->resume, "never") == 0) {
        r->resume = BCOP_RESUME_NEVER;
    } else {
        r->resume = BCOP_RESUME_FILE;
        r->resume_file = a->resume;
    }
    if (r->init_from && r->resume == BCOP_RESUME_FILE)
        return bcop_status_fail(BCOP_USAGE, "--init-from and --resume FILE exclude each other");
    return BCOP_OK;
}

static bcop_status run_on(const bcop_comm *comm, const arguments *a,
                          const bcop_train_request *request) {
    bcop_experiment experiment;
    BCOP_TRY(bcop_configuration_read(comm, a->config, a->set, &experiment));
    bcop_status status = a->profile ? bcop_profile_open(comm, a->profile) : BCOP_OK;
    if (status == BCOP_OK)
        status = bcop_trainer_run(comm, &experiment, request);
    if (a->profile)
        status = bcop_profile_close(comm, a->profile, status);
    bcop_experiment_free(&experiment);
    return status;
}

static bcop_status run(const bcop_comm *comm, int argc, char **argv) {
    arguments a = {0};
    const bcop_argument options[] = {{"--set", NULL, NULL, a.set},
                                     {"--run", &a.run, NULL, NULL},
                                     {"--resume", &a.resume, NULL, NULL},
                                     {"--init-from", &a.init_from, NULL, NULL},
                                     {"--max-steps", &a.max_steps, NULL, NULL},
                                     {"--max-time", &a.max_time, NULL, NULL},
                                     {"--profile", &a.profile, NULL, NULL},
                                     {"--dry-run", NULL, &a.dry_run, NULL},
                                     {0}};
    bcop_train_request request;
    bcop_status status = bcop_arguments_read(argc, argv, options, "CONFIG", &a.config);
    if (status == BCOP_OK)
        status = read_request(&a, &request);
    return status == BCOP_OK ? run_on(comm, &a, &request) : status;
}

const bcop_command bcop_command_train = {
    .name = "train",
    .usage = "CONFIG [--set key.path=value]... [--run DIR] [--resume auto|never|FILE]\n"
             "             [--init-from CHECKPOINT] [--max-steps N] [--max-time D] [--dry-run]\n"
             "             [--profile FILE.json]",
    .help = "train, or continue, a run",
    .run = run,
    .uses_mpi = true,
};
