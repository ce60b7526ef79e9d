/* bcop eval and bcop certify. */
#include "app/arguments.h"
#include "app/certify_report.h"
#include "app/command.h"
#include "app/json.h"
#include "app/network.h"
#include "base/log.h"

#include <string.h>

typedef struct arguments {
    const char *checkpoint, *split, *data, *eps, *per_image, *curve;
    bool json;
} arguments;

static bcop_status print_json(const bcop_network *n, const arguments *a, const bcop_reals *eps,
                              const bcop_evaluation *v) {
    json_t *out =
        json_pack("{s:s, s:I, s:I, s:s, s:I, s:o, s:f}", "checkpoint", n->snapshot.folder, "step",
                  (json_int_t)n->snapshot.progress.step, "epoch",
                  (json_int_t)n->snapshot.progress.epoch, "split", a->split, "examples",
                  (json_int_t)v->examples, "loss", bcop_json_real(v->loss), "clean", v->clean);
    if (out && a->eps)
        bcop_certify_report_json(n, eps, v->clean, out);
    return bcop_json_print(out);
}

static void print_text(const bcop_network *n, const arguments *a, const bcop_reals *eps,
                       const bcop_evaluation *v) {
    bcop_log_info("%s (step %ld), %s, %ld images", n->snapshot.folder, n->snapshot.progress.step,
                  a->split, v->examples);
    bcop_log_info("loss %.4f  clean accuracy %.2f%%", v->loss, 100 * v->clean);
    if (a->eps)
        bcop_certify_report_text(n, eps, v->clean);
}

/* Hashes and finiteness (by loading), and the operators against their blocks. Collective. */
static bcop_status verify(bcop_network *n, const bcop_comm *comm) {
    BCOP_TRY(bcop_checkpoint_load(&n->checkpoint, &n->snapshot, BCOP_PART_BLOCK));
    return bcop_comm_agree(comm, bcop_network_compare(n));
}

static bcop_status report(const bcop_network *n, const arguments *a, const bcop_reals *eps,
                          const bcop_evaluation *v) {
    if (a->per_image)
        BCOP_TRY(bcop_certify_report_images(n, a->per_image));
    if (a->curve)
        BCOP_TRY(bcop_certify_report_curve(n, a->curve));
    if (a->json)
        return print_json(n, a, eps, v);
    print_text(n, a, eps, v);
    return BCOP_OK;
}

static bcop_status examine(bcop_network *n, const bcop_comm *comm, const arguments *a,
                           const bcop_reals *eps) {
    if (a->eps)
        BCOP_TRY(verify(n, comm));
    bcop_evaluation v;
    bcop_evaluate_run(&n->evaluator, eps, &v, NULL, NULL);
    BCOP_TRY(bcop_network_check_bound(v.lipschitz));
    if (a->eps)
        bcop_certify_run(&n->certifier);
    return bcop_comm_agree(comm, comm->rank == 0 ? report(n, a, eps, &v) : BCOP_OK);
}

static bcop_status run_on(const bcop_comm *comm, const arguments *a) {
    bcop_reals eps = {0};
    if (a->eps)
        BCOP_TRY(bcop_arguments_eps(a->eps, &eps));
    bcop_network n;
    BCOP_TRY(bcop_network_open(comm, a->checkpoint, a->split, a->data, &n));
    const bcop_status status = examine(&n, comm, a, &eps);
    bcop_network_close(&n);
    return status;
}

static bcop_status run(const bcop_comm *comm, int argc, char **argv) {
    const bool certify = strcmp(argv[0], "certify") == 0;
    arguments a = {.split = "test"};
    /* The last three are certify's alone: for eval the list ends before them. */
    const bcop_argument options[] = {{"--split", &a.split, NULL, NULL},
                                     {"--data", &a.data, NULL, NULL},
                                     {"--json", NULL, &a.json, NULL},
                                     {certify ? "--eps" : NULL, &a.eps, NULL, NULL},
                                     {"--per-image", &a.per_image, NULL, NULL},
                                     {"--curve", &a.curve, NULL, NULL},
                                     {0}};
    bcop_status status = bcop_arguments_read(argc, argv, options, "CHECKPOINT", &a.checkpoint);
    if (status == BCOP_OK && certify && !a.eps)
        status = bcop_status_fail(BCOP_USAGE, "--eps is needed, e.g. --eps 36/255,0.5");
    return status == BCOP_OK ? run_on(comm, &a) : status;
}

const bcop_command bcop_command_eval = {
    .name = "eval",
    .usage = "CHECKPOINT [--split train|holdout|test] [--data DIR] [--json]",
    .help = "loss and accuracy of a checkpoint",
    .run = run,
    .uses_mpi = true,
};

const bcop_command bcop_command_certify = {
    .name = "certify",
    .usage = "CHECKPOINT --eps 36/255,0.5 [--split train|holdout|test] [--data DIR]\n"
             "             [--per-image FILE.csv] [--curve FILE.csv] [--json]",
    .help = "certified accuracy: no perturbation of at most eps (L2) changes a counted answer",
    .run = run,
    .uses_mpi = true,
};
