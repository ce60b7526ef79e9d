#include "app/arguments.h"
#include "app/command.h"
#include "app/json.h"
#include "app/network.h"
#include "base/log.h"
#include "train/attack.h"

#include <string.h>

typedef struct arguments {
    const char *checkpoint, *split, *data, *eps, *attack, *steps, *restarts;
    bcop_attack_rule rule; /* without eps and seed */
    bool json;
} arguments;

/* What came out at one radius. */
typedef struct outcome {
    double accuracy;       /* share answered rightly whatever the attack tried */
    double certified;      /* share certified, as `bcop certify` says */
    long violations;       /* images with a wrong answer inside their certified radius */
    long first;            /* the first of these */
    double first_distance; /* and how near its wrong answer is */
} outcome;

static outcome judge(const bcop_network *n, const bcop_attack *a, double eps) {
    const long count = bcop_dataset_count(n->dataset);
    outcome o = {0};
    long right = 0;
    for (long i = 0; i < count; i++)
        right += a->least[i] > 0;
    o.accuracy = (double)right / (double)count;
    o.certified = (double)bcop_certify_count(&n->certifier, eps, false, -1) / (double)count;
    o.violations = bcop_attack_violations(a, n->certifier.verdict, &o.first);
    o.first_distance = o.violations ? a->distance[o.first] : 0;
    return o;
}

static bcop_status print_json(const arguments *a, const bcop_reals *eps, const bcop_evaluation *v,
                              const outcome outcomes[]) {
    json_t *radii = json_object();
    for (int i = 0; i < eps->count; i++)
        json_object_set_new(radii, eps->text[i],
                            json_pack("{s:f, s:f, s:I}", "accuracy", outcomes[i].accuracy,
                                      "certified", outcomes[i].certified, "violations",
                                      (json_int_t)outcomes[i].violations));
    return bcop_json_print(json_pack("{s:s, s:I, s:f, s:s, s:i, s:i, s:o}", "split", a->split,
                                     "examples", (json_int_t)v->examples, "clean", v->clean,
                                     "attack", a->attack, "steps", a->rule.steps, "restarts",
                                     a->rule.restarts, "eps", radii));
}

static void print_text(const bcop_network *n, const arguments *a, const bcop_reals *eps,
                       const bcop_evaluation *v, const outcome outcomes[]) {
    bcop_log_info("%s (step %ld), %s, %ld images, %s with %d steps, %d restarts",
                  n->snapshot.folder, n->snapshot.progress.step, a->split, v->examples, a->attack,
                  a->rule.steps, a->rule.restarts);
    bcop_log_info("clean accuracy %.2f%%", 100 * v->clean);
    for (int i = 0; i < eps->count; i++)
        bcop_log_info("at L2 radius %-8s certified %.2f%%  right under attack %.2f%%  attacks "
                      "inside certified radii %ld",
                      eps->text[i], 100 * outcomes[i].certified, 100 * outcomes[i].accuracy,
                      outcomes[i].violations);
}

/* A certificate that does not hold must not pass unnoticed. */
static bcop_status check(const bcop_evaluation *v, const bcop_reals *eps,
                         const outcome outcomes[]) {
    for (int i = 0; i < eps->count; i++)
        if (outcomes[i].violations)
            return bcop_status_fail(
                BCOP_BAD_DATA,
                "the attack at %s succeeded inside the certified radius of %ld of %ld images, "
                "first image %ld, changed by %g: the certificate does not hold",
                eps->text[i], outcomes[i].violations, v->examples, outcomes[i].first,
                outcomes[i].first_distance);
    return BCOP_OK;
}

static bcop_status attack(bcop_network *n, const arguments *a, const bcop_reals *eps) {
    const bcop_comm *comm = n->evaluator.comm;
    bcop_evaluation v;
    bcop_evaluate_run(&n->evaluator, eps, &v, NULL, NULL);
    BCOP_TRY(bcop_network_check_bound(v.lipschitz));
    bcop_certify_run(&n->certifier);
    bcop_attack search = {.comm = comm,
                          .model = n->model,
                          .dataset = n->dataset,
                          .certificate = &n->certifier.certificate};
    bcop_arena arena = {.name = "attack"};
    bcop_attack_plan(&search, &arena);
    bcop_status status = bcop_comm_agree(comm, bcop_arena_reserve(&arena));
    BCOP_TRY(status);
    bcop_attack_plan(&search, &arena);
    outcome outcomes[BCOP_REALS_MAX];
    for (int i = 0; i < eps->count; i++) {
        bcop_attack_rule rule = a->rule;
        rule.eps = eps->value[i];
        rule.seed = (uint64_t)n->experiment.root.seed;
        bcop_attack_run(&search, &rule);
        outcomes[i] = judge(n, &search, rule.eps);
    }
    bcop_arena_free(&arena);
    if (comm->rank == 0 && a->json)
        status = print_json(a, eps, &v, outcomes);
    else if (comm->rank == 0)
        print_text(n, a, eps, &v, outcomes);
    if (status == BCOP_OK)
        status = check(&v, eps, outcomes);
    return bcop_comm_agree(comm, status);
}

static bcop_status read_rule(arguments *a) {
    if (!a->eps)
        return bcop_status_fail(BCOP_USAGE, "--eps is needed, e.g. --eps 36/255,0.5");
    if (!a->attack)
        return bcop_status_fail(BCOP_USAGE, "--attack is needed: pgd or fgsm");
    a->rule.fgsm = strcmp(a->attack, "fgsm") == 0;
    if (!a->rule.fgsm && strcmp(a->attack, "pgd") != 0)
        return bcop_status_fail(BCOP_USAGE, "--attack: must be pgd or fgsm (got '%s')", a->attack);
    if (a->rule.fgsm && (a->steps || a->restarts))
        return bcop_status_fail(BCOP_USAGE, "--%s: fgsm is one step from the image",
                                a->steps ? "steps" : "restarts");
    a->rule.steps = a->rule.fgsm ? 1 : 40;
    a->rule.restarts = a->rule.fgsm ? 1 : 2;
    BCOP_TRY(bcop_arguments_number("--steps", a->steps, 1, 1000000, &a->rule.steps));
    return bcop_arguments_number("--restarts", a->restarts, 1, 1000000, &a->rule.restarts);
}

static bcop_status run(const bcop_comm *comm, int argc, char **argv) {
    arguments a = {.split = "test"};
    const bcop_argument options[] = {
        {"--eps", &a.eps, NULL, NULL},     {"--attack", &a.attack, NULL, NULL},
        {"--steps", &a.steps, NULL, NULL}, {"--restarts", &a.restarts, NULL, NULL},
        {"--split", &a.split, NULL, NULL}, {"--data", &a.data, NULL, NULL},
        {"--json", NULL, &a.json, NULL},   {0}};
    BCOP_TRY(bcop_arguments_read(argc, argv, options, "CHECKPOINT", &a.checkpoint));
    BCOP_TRY(read_rule(&a));
    bcop_reals eps;
    BCOP_TRY(bcop_arguments_eps(a.eps, &eps));
    bcop_network n;
    BCOP_TRY(bcop_network_open(comm, a.checkpoint, a.split, a.data, &n));
    const bcop_status status = attack(&n, &a, &eps);
    bcop_network_close(&n);
    return status;
}

const bcop_command bcop_command_attack = {
    .name = "attack",
    .usage = "CHECKPOINT --eps 36/255,0.5 --attack pgd|fgsm [--steps N] [--restarts N]\n"
             "             [--split train|holdout|test] [--data DIR] [--json]",
    .help = "accuracy under attack; an attack that beats a certificate is an error",
    .run = run,
    .uses_mpi = true,
};
