/* bcop bench: the project's own measurements. */
#include "app/arguments.h"
#include "app/bench_comm.h"
#include "app/bench_conv.h"
#include "app/bench_ortho.h"
#include "app/bench_step.h"
#include "app/command.h"
#include "app/json.h"
#include "base/config.h"
#include "base/log.h"
#include "linalg/product.h"

#include <stdio.h>
#include <string.h>

typedef struct benchmark {
    const char *name;
    bcop_status (*run)(bcop_bench_task *task);
} benchmark;

static const benchmark benchmarks[] = {
    {"ortho", bcop_bench_ortho_run},
    {"conv", bcop_bench_conv_run},
    {"comm", bcop_bench_comm_run},
    {"step", bcop_bench_step_run},
};

enum { BENCHMARKS = sizeof benchmarks / sizeof *benchmarks, WORDS_MAX = 64 };

typedef struct arguments {
    const benchmark *wanted[BENCHMARKS]; /* in the order of the command line */
    int count, max_size, warmup, steps;
    const char *config;
    const char *set[BCOP_SETS_MAX];
    bool json;
} arguments;

static bool wants(const arguments *a, const char *name) {
    for (int k = 0; k < a->count; k++)
        if (strcmp(a->wanted[k]->name, name) == 0)
            return true;
    return false;
}

/* The next word of the command line: a benchmark, or, after `step`, the configuration. */
static bcop_status take_word(arguments *a, const char *word) {
    const char *names[BENCHMARKS + 1] = {0};
    if (wants(a, "step") && !a->config) {
        a->config = word;
        return BCOP_OK;
    }
    for (int i = 0; i < BENCHMARKS; i++) {
        names[i] = benchmarks[i].name;
        if (strcmp(word, names[i]) != 0)
            continue;
        if (wants(a, word))
            return bcop_status_fail(BCOP_USAGE, "benchmark '%s' is named twice", word);
        a->wanted[a->count++] = &benchmarks[i];
        return BCOP_OK;
    }
    const char *near = bcop_config_suggest(word, names);
    return bcop_status_fail(BCOP_USAGE, "unknown benchmark '%s'%s%s%s", word,
                            near ? "; did you mean '" : "; there are ortho, conv, comm and step",
                            near ? near : "", near ? "'?" : "");
}

/* Several benchmarks may be named: words after the first are taken out before the rest is read as
   any command line. */
static bcop_status read_arguments(int argc, char **argv, arguments *a) {
    char *word[WORDS_MAX];
    const char *extra[WORDS_MAX], *first = NULL, *size = NULL, *warmup = NULL, *steps = NULL;
    int words = 0, extras = 0;
    bool seen = false;
    const bcop_argument options[] = {
        {"--json", NULL, &a->json, NULL},  {"--max-size", &size, NULL, NULL},
        {"--warmup", &warmup, NULL, NULL}, {"--steps", &steps, NULL, NULL},
        {"--set", NULL, NULL, a->set},     {0}};
    if (argc > WORDS_MAX)
        return bcop_status_fail(BCOP_USAGE, "too many arguments");
    for (int i = 0; i < argc; i++) {
        bool is_word = i > 0 && argv[i][0] != '-';
        for (const bcop_argument *o = options; i > 0 && o->name; o++)
            is_word &= o->flag || strcmp(argv[i - 1], o->name) != 0;
        if (is_word && seen)
            extra[extras++] = argv[i];
        else
            word[words++] = argv[i];
        seen |= is_word;
    }
    BCOP_TRY(
        bcop_arguments_read(words, word, options, "benchmark (ortho, conv, comm or step)", &first));
    BCOP_TRY(take_word(a, first));
    for (int i = 0; i < extras; i++)
        BCOP_TRY(take_word(a, extra[i]));
    if (wants(a, "step") && !a->config)
        return bcop_status_fail(BCOP_USAGE, "step: the configuration to train is missing");
    a->max_size = 2048;
    a->warmup = 30;
    a->steps = 40;
    BCOP_TRY(bcop_arguments_number("--max-size", size, BCOP_BENCH_SIZE_MIN, BCOP_BENCH_SIZE_MAX,
                                   &a->max_size));
    BCOP_TRY(bcop_arguments_number("--warmup", warmup, 0, 1000000, &a->warmup));
    return bcop_arguments_number("--steps", steps, 1, 100000, &a->steps);
}

/* The constants that were measured, as `--machine` of other commands takes them. */
static void report_machine(const bcop_machine *machine, json_t *json) {
    char line[256] = "";
    json_t *object = json_object();
    for (const bcop_machine_key *key = bcop_machine_keys; key->name; key++) {
        const double value = bcop_machine_value(machine, key);
        if (!(value > 0))
            continue;
        const size_t used = strlen(line);
        snprintf(line + used, sizeof line - used, "%s%s=%.4g", used ? "," : "", key->name, value);
        json_object_set_new(object, key->name, json_real(value));
    }
    if (line[0])
        bcop_log_info("--machine %s", line);
    json_object_set_new(json, "machine", object);
}

static bcop_status run(const bcop_comm *comm, int argc, char **argv) {
    arguments a = {0};
    BCOP_TRY(bcop_comm_agree(comm, read_arguments(argc, argv, &a)));
    bcop_bench_task task = {.comm = comm,
                            .max_size = a.max_size,
                            .config = a.config,
                            .set = a.set,
                            .warmup = a.warmup,
                            .steps = a.steps};
    if (comm->rank == 0)
        task.json = json_pack("{s:i, s:s, s:s}", "ranks", comm->size, "blas",
                              bcop_product_library(), "mpi", bcop_comm_library());
    bcop_status status = BCOP_OK;
    if (comm->rank == 0 && !task.json)
        status = bcop_status_fail(BCOP_INTERNAL, "out of memory for the results");
    status = bcop_comm_agree(comm, status);
    for (int i = 0; i < a.count && status == BCOP_OK; i++)
        status = a.wanted[i]->run(&task);
    if (status != BCOP_OK || comm->rank != 0) {
        json_decref(task.json);
        return bcop_comm_agree(comm, status);
    }
    report_machine(&task.machine, task.json);
    if (a.json)
        status = bcop_json_print(task.json);
    else
        json_decref(task.json);
    return bcop_comm_agree(comm, status);
}

const bcop_command bcop_command_bench = {
    .name = "bench",
    .usage = "ortho|conv|comm|step CONFIG... [--max-size N] [--set key.path=value]...\n"
             "             [--warmup N] [--steps N] [--json]",
    .help = "measure this machine: the stage (blocks up to N), the layers, the messages, and steps "
            "of a training",
    .run = run,
    .uses_mpi = true,
};
