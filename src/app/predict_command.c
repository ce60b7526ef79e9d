#include "app/arguments.h"
#include "app/command.h"
#include "app/json.h"
#include "app/network.h"
#include "base/log.h"

#include <string.h>

/* What the network says of each image; one array, so that the ranks' parts merge at once. */
typedef struct answers {
    long count;
    double *label, *margin; /* [count]; margin: the answer's logit less the next one's */
    double lipschitz;
} answers;

static void plan(answers *a, long count, bcop_arena *arena) {
    a->count = count;
    a->label = bcop_arena_take(arena, 2 * count, sizeof(double));
    a->margin = a->label ? a->label + count : NULL;
}

static void answer(bcop_network *n, answers *a) {
    const bcop_comm *comm = n->evaluator.comm;
    bcop_model *model = n->model;
    const long size = bcop_shape_size(model->in), run = model->run;
    memset(a->label, 0, 2 * (size_t)a->count * sizeof(double));
    for (long first = comm->rank * run; first < a->count; first += comm->size * run) {
        const int images = (int)(a->count - first < run ? a->count - first : run);
        for (int i = 0; i < images; i++)
            bcop_dataset_read(n->dataset, first + i, n->evaluator.x + i * size);
        const float *z = bcop_model_forward(model, images, 0, n->evaluator.x);
        for (int i = 0; i < images; i++, z += model->classes) {
            int label = 0;
            for (int j = 1; j < model->classes; j++)
                if (z[j] > z[label])
                    label = j;
            a->label[first + i] = label;
            a->margin[first + i] = bcop_loss_margin(model->classes, z, label);
        }
    }
    bcop_comm_merge(comm, a->label, 2 * a->count);
    a->lipschitz = bcop_model_bound(model, NULL);
}

static bcop_status print_json(const bcop_network *n, const char *file, const answers *a) {
    json_t *images = json_array();
    for (long i = 0; i < a->count; i++)
        json_array_append_new(images,
                              json_pack("{s:I, s:i, s:f, s:f}", "index", (json_int_t)i, "label",
                                        (int)a->label[i], "margin", a->margin[i], "radius",
                                        bcop_evaluate_radius(a->lipschitz, a->margin[i])));
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
    for (long i = 0; i < a->count; i++)
        bcop_log_info("%10ld  %5d  %10.6f  %.6f", i, (int)a->label[i], a->margin[i],
                      bcop_evaluate_radius(a->lipschitz, a->margin[i]));
}

static bcop_status predict(bcop_network *n, const char *file, bool json) {
    const bcop_comm *comm = n->evaluator.comm;
    bcop_arena arena = {.name = "predictions"};
    answers a;
    plan(&a, bcop_dataset_count(n->dataset), &arena);
    BCOP_TRY(bcop_comm_agree(comm, bcop_arena_reserve(&arena)));
    plan(&a, a.count, &arena);
    answer(n, &a);
    bcop_status status = bcop_network_check_bound(a.lipschitz);
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
    BCOP_TRY(bcop_arguments_read_many(argc, argv, options, 2,
                                      (const char *const[]){"CHECKPOINT", "FILE.h5"}, operand));
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
