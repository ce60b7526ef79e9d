#include "app/arguments.h"
#include "app/command.h"
#include "app/configuration.h"
#include "app/json.h"
#include "app/plan_print.h"
#include "train/pattern.h"

#include <stdio.h>

typedef struct arguments {
    const char *config, *ranks, *iterations, *machine, *pattern;
    const char *set[BCOP_SETS_MAX];
    bool json;
} arguments;

static bcop_status scale(bcop_plan_report *report, const bcop_experiment *experiment,
                         const bcop_worker_data *data, int iterations) {
    for (int i = 0; i < BCOP_PLAN_SCALES; i++) {
        const bcop_experiment grown = bcop_plan_grow(experiment, 1 << i);
        bcop_plan plan;
        const bcop_status status =
            bcop_plan_open(&plan, &grown, data, 1 << i, iterations, report->machine);
        report->scale[i] = plan.step;
        bcop_plan_close(&plan);
        BCOP_TRY(status);
    }
    return BCOP_OK;
}

static bcop_status cross(bcop_plan_report *report) {
    const bcop_stage_rule *rule = &report->plan.worker.stage.rule;
    for (int i = 0; i < BCOP_PLAN_GROUPS; i++) {
        const int ranks = 2 << i, iterations = report->plan.iterations;
        report->crossover[i].ranks = ranks;
        BCOP_TRY(bcop_plan_crossover(rule, BCOP_PLACEMENT_SHARED, 1, ranks, iterations,
                                     report->machine, &report->crossover[i].shared));
        BCOP_TRY(bcop_plan_crossover(rule, BCOP_PLACEMENT_OWNED, ranks, ranks, iterations,
                                     report->machine, &report->crossover[i].owned));
    }
    return BCOP_OK;
}

static bcop_status write_pattern(const char *path, const bcop_plan *plan,
                                 const bcop_worker_data *data, const bcop_machine *machine) {
    FILE *out = fopen(path, "w");
    if (!out)
        return bcop_status_errno(BCOP_CANNOT_CREATE, "%s", path);
    const bcop_status status = bcop_pattern_write(plan, data, machine, out);
    const bool bad = ferror(out) != 0;
    if ((fclose(out) != 0 || bad) && status == BCOP_OK)
        return bcop_status_errno(BCOP_IO, "%s", path);
    return status;
}

static bcop_status make(const arguments *a, const bcop_experiment *experiment,
                        const bcop_worker_data *data, int ranks, int iterations,
                        const bcop_machine *machine) {
    bcop_plan_report report = {.machine = machine};
    bcop_status status = bcop_plan_open(&report.plan, experiment, data, ranks, iterations, machine);
    if (status == BCOP_OK)
        status = scale(&report, experiment, data, iterations);
    if (status == BCOP_OK)
        status = cross(&report);
    if (status == BCOP_OK && a->pattern)
        status = write_pattern(a->pattern, &report.plan, data, machine);
    if (status == BCOP_OK) {
        bcop_plan_print_text(&report);
        if (a->json)
            status = bcop_json_print(bcop_plan_print_json(&report));
    }
    bcop_plan_close(&report.plan);
    return status;
}

static bcop_status run_with(const arguments *a, int ranks, int iterations,
                            const bcop_machine *machine) {
    bcop_experiment experiment;
    BCOP_TRY(bcop_configuration_read(&bcop_comm_alone, a->config, a->set, &experiment));
    bcop_worker_data data = {0};
    bcop_status status = bcop_worker_open_data(&experiment, &data);
    if (status == BCOP_OK)
        status = make(a, &experiment, &data, ranks, iterations, machine);
    bcop_worker_close_data(&data);
    bcop_experiment_free(&experiment);
    return status;
}

static bcop_status run(const bcop_comm *comm, int argc, char **argv) {
    (void)comm;
    arguments a = {.iterations = "1"};
    const bcop_argument options[] = {{"--ranks", &a.ranks, NULL, NULL},
                                     {"--set", NULL, NULL, a.set},
                                     {"--iterations", &a.iterations, NULL, NULL},
                                     {"--machine", &a.machine, NULL, NULL},
                                     {"--pattern", &a.pattern, NULL, NULL},
                                     {"--json", NULL, &a.json, NULL},
                                     {0}};
    BCOP_TRY(bcop_arguments_read(argc, argv, options, "CONFIG", &a.config));
    if (!a.ranks)
        return bcop_status_fail(BCOP_USAGE, "--ranks N is needed: for how many ranks?");
    int ranks = 0, iterations = 0;
    bcop_machine machine = bcop_machine_default();
    BCOP_TRY(bcop_arguments_number("--ranks", a.ranks, 1, BCOP_PLACEMENT_RANKS_MAX, &ranks));
    BCOP_TRY(bcop_arguments_number("--iterations", a.iterations, 0, 100, &iterations));
    if (a.machine)
        BCOP_TRY(bcop_machine_read(a.machine, &machine));
    return run_with(&a, ranks, iterations, &machine);
}

const bcop_command bcop_command_plan = {
    .name = "plan",
    .usage = "CONFIG --ranks N [--json] [--set key.path=value]... [--iterations I]\n"
             "             [--machine key=value,...] [--pattern FILE]",
    .help = "what a job of N ranks would hold, send and take, without running it",
    .run = run,
};
