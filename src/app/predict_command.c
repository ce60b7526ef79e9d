#include "app/arguments.h"
#include "app/command.h"
#include "app/json.h"
#include "app/network.h"
#include "base/log.h"

#include <math.h>
#include <string.h>

typedef struct answer {
    double label;
    double margin; /* its logit less the next one's */
    double radius; /* certified */
} answer;

typedef struct answers {
    long count;
    int classes;
    answer *answer; /* [count] */
    double *logits; /* [count][classes] */
} answers;

static void plan(answers *a, const bcop_network *n, bcop_arena *arena) {
    a->count = bcop_dataset_count(n->dataset);
    a->classes = n->model->classes;
    a->answer = bcop_arena_take(arena, a->count, sizeof *a->answer);
    a->logits = bcop_arena_take(arena, a->count * a->classes, sizeof(double));
}

static answer judge(const bcop_certificate *certificate, int image, int classes, const double *z) {
    int label = 0;
    for (int j = 1; j < classes; j++)
        if (z[j] > z[label])
            label = j;
    const bcop_verdict v = bcop_certificate_judge(certificate, image, z, label);
    return (answer){label, v.margin, v.radius};
}

/* In float64; runs are dealt to the ranks in turn. */
static void find_answers(bcop_network *n, answers *a) {
    const bcop_comm *comm = n->evaluator.comm;
    bcop_certificate *certificate = &n->certifier.certificate;
    const long size = bcop_shape_size(n->model->in), run = certificate->run;
    bcop_certificate_prepare(certificate);
    for (long first = comm->rank * run; first < a->count; first += comm->size * run) {
        const int images = (int)(a->count - first < run ? a->count - first : run);
        for (int i = 0; i < images; i++)
            bcop_dataset_read(n->dataset, first + i, n->certifier.x + i * size);
        const double *z = bcop_certificate_forward(certificate, images, n->certifier.x);
        memcpy(a->logits + first * a->classes, z, (size_t)images * (size_t)a->classes * sizeof *z);
        for (int i = 0; i < images; i++)
            a->answer[first + i] = judge(certificate, i, a->classes, z + (long)i * a->classes);
    }
    _Static_assert(sizeof(answer) == 3 * sizeof(double), "an answer is doubles");
    bcop_comm_merge(comm, (double *)a->answer, 3 * a->count);
    bcop_comm_merge(comm, a->logits, a->count * a->classes);
}

static json_t *image_json(const answers *a, long index) {
    const answer *one = &a->answer[index];
    json_t *logits = json_array();
    for (int j = 0; j < a->classes; j++)
        json_array_append_new(logits, json_real(a->logits[index * a->classes + j]));
    return json_pack("{s:I, s:i, s:o, s:o, s:o}", "index", (json_int_t)index, "label",
                     (int)one->label, "margin", bcop_json_real(one->margin), "radius",
                     bcop_json_real(one->radius), "logits", logits);
}

/* Pixels may be as large as float32 can be. */
static bcop_status check_logits(const answers *a, const char *file) {
    for (long k = 0; k < a->count * a->classes; k++)
        if (!isfinite(a->logits[k]))
            return bcop_status_fail(BCOP_BAD_DATA, "%s: the logits of image %ld are not finite",
                                    file, k / a->classes);
    return BCOP_OK;
}

static bcop_status print_json(const bcop_network *n, const char *file, const answers *a) {
    json_t *images = json_array();
    for (long i = 0; i < a->count; i++)
        json_array_append_new(images, image_json(a, i));
    return bcop_json_print(
        json_pack("{s:s, s:I, s:I, s:s, s:I, s:f, s:f, s:o}", "checkpoint", n->snapshot.folder,
                  "step", (json_int_t)n->snapshot.progress.step, "epoch",
                  (json_int_t)n->snapshot.progress.epoch, "file", file, "examples",
                  (json_int_t)a->count, "lipschitz", n->certifier.certificate.lipschitz,
                  "input_scale", bcop_model_input_scale(n->model), "images", images));
}

static void print_text(const bcop_network *n, const char *file, const answers *a) {
    bcop_log_info("%s (step %ld), %s, %ld images, proven Lipschitz bound %.9f", n->snapshot.folder,
                  n->snapshot.progress.step, file, a->count,
                  bcop_rounding_up(n->certifier.certificate.lipschitz, 9));
    bcop_log_info("     image  label      margin  certified L2 radius");
    for (long i = 0; i < a->count; i++)
        bcop_log_info("%10ld  %5d  %10.6f  %.6f", i, (int)a->answer[i].label, a->answer[i].margin,
                      bcop_rounding_down(a->answer[i].radius, 6));
}

static bcop_status predict(bcop_network *n, const char *file, bool json) {
    const bcop_comm *comm = n->evaluator.comm;
    bcop_arena arena = {.name = "predictions"};
    answers a;
    plan(&a, n, &arena);
    BCOP_TRY(bcop_comm_agree(comm, bcop_arena_reserve(&arena)));
    plan(&a, n, &arena);
    find_answers(n, &a);
    bcop_status status = bcop_network_check_bound(n->certifier.certificate.lipschitz);
    if (status == BCOP_OK)
        status = check_logits(&a, file);
    if (status == BCOP_OK && comm->rank == 0 && json)
        status = print_json(n, file, &a);
    else if (status == BCOP_OK && comm->rank == 0)
        print_text(n, file, &a);
    bcop_arena_free(&arena);
    return bcop_comm_agree(comm, status);
}

static bcop_status run(const bcop_comm *comm, int argc, char **argv) {
    const char *operand[2];
    bool json = false;
    const bcop_argument options[] = {{"--json", NULL, &json, NULL}, {0}};
    const char *const what[] = {"CHECKPOINT", "FILE.h5"};
    int count;
    BCOP_TRY(bcop_arguments_read_list(argc, argv, options, 2, what, 2, operand, &count));
    bcop_network n;
    BCOP_TRY(bcop_network_open_images(comm, operand[0], operand[1], &n));
    const bcop_status status = predict(&n, operand[1], json);
    bcop_network_close(&n);
    return status;
}

const bcop_command bcop_command_predict = {
    .name = "predict",
    .usage = "CHECKPOINT FILE.h5 [--json]",
    .help = "label, margin and certified radius of the images x [N,H,W,C] in an HDF5 file",
    .run = run,
    .uses_mpi = true,
};
