#include "train/certify.h"

#include <string.h>

/* Enough rows for a product to be worth reading the weights; the same for any number of ranks. */
enum { RUN = 32 };

void bcop_certify_plan(bcop_certifier *c, bcop_arena *arena) {
    bcop_certificate_plan(&c->certificate, c->model, RUN, arena);
    c->x = bcop_arena_floats(arena, RUN * bcop_shape_size(c->model->in));
    c->verdict = bcop_arena_take(arena, bcop_dataset_count(c->dataset), sizeof *c->verdict);
}

static void judge_run(bcop_certifier *c, long first, int n) {
    const long size = bcop_shape_size(c->model->in);
    for (int i = 0; i < n; i++)
        bcop_dataset_read(c->dataset, first + i, c->x + i * size);
    const double *z = bcop_certificate_forward(&c->certificate, n, c->x);
    for (int i = 0; i < n; i++)
        c->verdict[first + i] =
            bcop_certificate_judge(&c->certificate, i, z + (long)i * c->model->classes,
                                   bcop_dataset_label(c->dataset, first + i));
}

void bcop_certify_run(bcop_certifier *c) {
    const long count = bcop_dataset_count(c->dataset);
    bcop_certificate_prepare(&c->certificate);
    memset(c->verdict, 0, (size_t)count * sizeof *c->verdict);
    for (long i = c->comm->rank; i * RUN < count; i += c->comm->size) {
        const long left = count - i * RUN;
        judge_run(c, i * RUN, (int)(left < RUN ? left : RUN));
    }
    _Static_assert(sizeof(bcop_verdict) % sizeof(double) == 0, "a verdict is doubles");
    bcop_comm_merge(c->comm, (double *)c->verdict,
                    count * (long)(sizeof(bcop_verdict) / sizeof(double)));
}

long bcop_certify_count(const bcop_certifier *c, double eps, bool float32, int label) {
    long count = 0;
    for (long i = 0; i < bcop_dataset_count(c->dataset); i++) {
        const double radius = float32 ? c->verdict[i].float_radius : c->verdict[i].radius;
        count += (label < 0 || bcop_dataset_label(c->dataset, i) == label) &&
                 bcop_certificate_covers(radius, eps);
    }
    return count;
}
