/* bcop eval and bcop certify. */
#include "app/arguments.h"
#include "app/command.h"
#include "app/json.h"
#include "app/network.h"
#include "base/log.h"

#include <stdio.h>
#include <string.h>

typedef struct arguments {
    const char *checkpoint, *split, *data, *eps, *per_image;
    bool json;
} arguments;

static bcop_status print_json(const bcop_network *n, const arguments *a, const bcop_reals *eps,
                              const bcop_evaluation *v) {
    json_t *out = json_pack("{s:s, s:I, s:I, s:s, s:I, s:f, s:f}", "checkpoint", n->snapshot.folder,
                            "step", (json_int_t)n->snapshot.progress.step, "epoch",
                            (json_int_t)n->snapshot.progress.epoch, "split", a->split, "examples",
                            (json_int_t)v->examples, "loss", v->loss, "clean", v->clean);
    if (out && a->eps) {
        json_t *certified = json_object();
        for (int i = 0; i < eps->count; i++)
            json_object_set_new(certified, eps->text[i], json_real(v->certified[i]));
        json_object_set_new(out, "certified", certified);
        json_object_set_new(out, "lipschitz", json_real(v->lipschitz));
        json_object_set_new(out, "input_scale", json_real(bcop_model_input_scale(n->model)));
        json_object_set_new(out, "rounding", json_null());
    }
    return bcop_json_print(out);
}

static void print_text(const bcop_network *n, const arguments *a, const bcop_reals *eps,
                       const bcop_evaluation *v) {
    bcop_log_info("%s (step %ld), %s, %ld images", n->snapshot.folder, n->snapshot.progress.step,
                  a->split, v->examples);
    bcop_log_info("loss %.4f  clean accuracy %.2f%%", v->loss, 100 * v->clean);
    if (!a->eps)
        return;
    bcop_log_info("proven Lipschitz bound %.9f (input scale %g)", v->lipschitz,
                  bcop_model_input_scale(n->model));
    for (int i = 0; i < eps->count; i++)
        bcop_log_info("certified at L2 radius %-8s %.2f%%", eps->text[i], 100 * v->certified[i]);
    bcop_log_info("(margins are those of the float32 forward pass)");
}

/* index, label, margin, and the radius within which the answer provably stays right. */
static bcop_status write_images(const bcop_network *n, const char *path, double lipschitz) {
    FILE *out = fopen(path, "w");
    if (!out)
        return bcop_status_errno(BCOP_CANNOT_CREATE, "%s", path);
    fputs("index,label,correct,margin,radius\n", out);
    const bcop_evaluator *e = &n->evaluator;
    for (long i = 0; i < bcop_dataset_count(e->dataset); i++) {
        fprintf(out, "%ld,%d,%d,%.17g,%.17g\n", i, bcop_dataset_label(e->dataset, i),
                e->margin[i] > 0, e->margin[i], bcop_evaluate_radius(lipschitz, e->margin[i]));
    }
    if (fclose(out) != 0)
        return bcop_status_errno(BCOP_IO, "%s", path);
    return BCOP_OK;
}

static bcop_status run_on(const bcop_comm *comm, const arguments *a) {
    bcop_reals eps = {0};
    if (a->eps)
        BCOP_TRY(bcop_arguments_eps(a->eps, &eps));
    bcop_network n;
    BCOP_TRY(bcop_network_open(comm, a->checkpoint, a->split, a->data, &n));
    bcop_evaluation v;
    bcop_evaluate_run(&n.evaluator, &eps, &v, NULL, NULL);
    bcop_status status = bcop_network_check_bound(v.lipschitz);
    if (status == BCOP_OK && comm->rank == 0) {
        if (a->json)
            status = print_json(&n, a, &eps, &v);
        else
            print_text(&n, a, &eps, &v);
        if (status == BCOP_OK && a->per_image)
            status = write_images(&n, a->per_image, v.lipschitz);
    }
    status = bcop_comm_agree(comm, status);
    bcop_network_close(&n);
    return status;
}

static bcop_status run(const bcop_comm *comm, int argc, char **argv) {
    const bool certify = strcmp(argv[0], "certify") == 0;
    arguments a = {.split = "test"};
    /* The last two are certify's alone: for eval the list ends before them. */
    const bcop_argument options[] = {
        {"--split", &a.split, NULL, NULL},         {"--data", &a.data, NULL, NULL},
        {"--json", NULL, &a.json, NULL},           {certify ? "--eps" : NULL, &a.eps, NULL, NULL},
        {"--per-image", &a.per_image, NULL, NULL}, {0}};
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
             "             [--per-image FILE.csv] [--json]",
    .help = "certified accuracy: no perturbation of at most eps (L2) changes a counted answer",
    .run = run,
    .uses_mpi = true,
};
