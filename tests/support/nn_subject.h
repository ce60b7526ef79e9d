/* Networks and their certificates, prepared. */
#ifndef BCOP_TESTS_NN_SUBJECT_H
#define BCOP_TESTS_NN_SUBJECT_H

#include "nn_fixture.h"

#include "nn/certificate.h"

enum { NN_SUBJECT_RUN = 32 };

typedef struct nn_subject {
    nn_fixture f;
    bcop_certificate c;
    bcop_arena arena;
} nn_subject;

/* Three channels of images that need scaling. */
extern const bcop_reals nn_subject_means, nn_subject_stds;

/* mean and std NULL: none. */
nn_subject nn_subject_open(const char *list, bcop_shape in, int classes, const bcop_reals *mean,
                           const bcop_reals *std);
void nn_subject_close(nn_subject *subject);

/* Pixels as bytes / 255 with an uneven distribution, as images have. The caller frees them. */
float *nn_subject_images(uint64_t seed, long count);

#endif
