#include "app/arguments.h"
#include "app/command.h"
#include "app/json.h"
#include "app/network.h"
#include "base/log.h"
#include "nn/pairs.h"

#include <math.h>

typedef struct answers {
    long count;
    int classes;
    double *logits;             /* [count][classes] */
    double *margin;             /* [count], of the answer */
    double lipschitz, constant; /* of the network, and of margins (nn/pairs.h) */
} answers;

static void plan(answers *a, const bcop_network *n, bcop_arena *arena) {
    a->count = bcop_dataset_count(n->dataset);
    a->classes = n->model->classes;
    a->logits = bcop_arena_take(arena, a->count * a->classes, sizeof(double));
    a->margin = bcop_arena_take(arena, a->count, sizeof(double));
}

static int label_of(const answers *a, long index) {
    const double *z = a->logits + index * a->classes;
    int label = 0;
    for (int j = 1; j < a->classes; j++)
        if (z[j] > z[label])
            label = j;
    return label;
}

/* Runs are dealt to the ranks in turn. */
static void answer(bcop_network *n, answers *a) {
    const bcop_comm *comm = n->evaluator.comm;
    const long size = bcop_shape_size(n->model->in), run = n->model->group;
    for (long first = comm->rank * run; first < a->count; first += comm->size * run) {
        const int images = (int)(a->count - first < run ? a->count - first : run);
        for (int i = 0; i < images; i++)
            bcop_dataset_read(n->dataset, first + i, n->evaluator.x + i * size);
        const float *z = bcop_model_forward(n->model, images, 0, n->evaluator.x);
        for (long k = 0; k < (long)images * a->classes; k++)
            a->logits[first * a->classes + k] = (double)z[k];
    }
    bcop_comm_merge(comm, a->logits, a->count * a->classes);
    a->lipschitz = bcop_model_bound(n->model, NULL);
    a->constant = bcop_pairs_constant(n->model, a->lipschitz);
    for (long i = 0; i < a->count; i++)
        a->margin[i] =
            bcop_pairs_margin_double(n->model, a->logits + i * a->classes, label_of(a, i));
}

/* Pixels may be as large as float32 can be. */
static bcop_status check_logits(const answers *a, const char *file) {
    for (long k = 0; k < a->count * a->classes; k++)
        if (!isfinite(a->logits[k]))
            return bcop_status_fail(BCOP_BAD_DATA, "%s: the logits of image %ld are not finite",
                                    file, k / a->classes);
    return BCOP_OK;
}

static json_t *image_json(const answers *a, long index) {
    const double margin = a->margin[index];
    json_t *logits = json_array();
    for (int j = 0; j < a->classes; j++)
        json_array_append_new(logits, json_real(a->logits[index * a->classes + j]));
    return json_pack("{s:I, s:i, s:f, s:f, s:o}", "index", (json_int_t)index, "label",
                     label_of(a, index), "margin", margin, "radius",
                     bcop_evaluate_radius(a->constant, margin), "logits", logits);
}

static bcop_status print_json(const bcop_network *n, const char *file, const answers *a) {
    json_t *images = json_array();
    for (long i = 0; i < a->count; i++)
        json_array_append_new(images, image_json(a, i));
    return bcop_json_print(json_pack(
        "{s:s, s:I, s:I, s:s, s:I, s:f, s:f, s:o}", "checkpoint", n->snapshot.folder, "step",
        (json_int_t)n->snapshot.progress.step, "epoch", (json_int_t)n->snapshot.progress.epoch,
        "file", file, "examples", (json_int_t)a->count, "lipschitz", a->lipschitz, "input_scale",
        bcop_model_input_scale(n->model), "images", images));
}

static void print_text(const bcop_network *n, const char *file, const answers *a) {
    bcop_log_info("%s (step %ld), %s, %ld images, proven Lipschitz bound %.9f", n->snapshot.folder,
                  n->snapshot.progress.step, file, a->count, a->lipschitz);
    bcop_log_info("     image  label      margin  certified L2 radius");
    for (long i = 0; i < a->count; i++) {
        bcop_log_info("%10ld  %5d  %10.6f  %.6f", i, label_of(a, i), a->margin[i],
                      bcop_evaluate_radius(a->constant, a->margin[i]));
    }
}

static bcop_status predict(bcop_network *n, const char *file, bool json) {
    const bcop_comm *comm = n->evaluator.comm;
    bcop_arena arena = {.name = "predictions"};
    answers a;
    plan(&a, n, &arena);
    BCOP_TRY(bcop_comm_agree(comm, bcop_arena_reserve(&arena)));
    plan(&a, n, &arena);
    answer(n, &a);
    bcop_status status = bcop_network_check_bound(a.lipschitz);
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
