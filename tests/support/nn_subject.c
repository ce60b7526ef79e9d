#include "nn_subject.h"

#include "oracle.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

const bcop_reals nn_subject_means = {.count = 3, .value = {0.5, 0.25, 0.4}};
const bcop_reals nn_subject_stds = {.count = 3, .value = {0.5, 0.25, 0.75}};

nn_subject nn_subject_open(const char *list, bcop_shape in, int classes, const bcop_reals *mean,
                           const bcop_reals *std) {
    nn_subject s = {.arena = {.name = "certificate"}};
    s.f = nn_fixture_open(&(nn_setting){.list = list,
                                        .in = in,
                                        .classes = classes,
                                        .mean = mean,
                                        .std = std,
                                        .run = NN_SUBJECT_RUN,
                                        .evaluating = true},
                          7);
    bcop_certificate_plan(&s.c, s.f.model, NN_SUBJECT_RUN, &s.arena);
    assert_int_equal(bcop_arena_reserve(&s.arena), BCOP_OK);
    bcop_certificate_plan(&s.c, s.f.model, NN_SUBJECT_RUN, &s.arena);
    bcop_certificate_prepare(&s.c);
    return s;
}

void nn_subject_close(nn_subject *s) {
    bcop_arena_free(&s->arena);
    nn_fixture_close(&s->f);
}

float *nn_subject_images(uint64_t seed, long count) {
    double *noise = oracle_doubles(count);
    oracle_random(seed, count, noise);
    float *x = oracle_floats(count);
    for (long i = 0; i < count; i++)
        x[i] = (float)fmin(255, floor(fabs(noise[i]) * 100)) / 255;
    free(noise);
    return x;
}
