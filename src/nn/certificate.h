/* Certificates: the network's constant, its value in float64 and what rounding can do to both
 * (docs/CERTIFICATES.md has the proof).
 *
 * f is the real-valued function of the stored float32 operators, biases and input scaling. With
 * z = f(x), an answer y is certified at eps when z_y - z_j > pair[y][j] eps for every j != y, where
 * pair[i][j] >= the Lipschitz constant of z_i - z_j: sqrt(2) L, or what the last layer knows
 * better. z is computed in float64 with a proven bound e on ||computed z - z||.
 *
 * The float32 forward pass errs at a point at distance r of x by at most E + D r (L2 norm of the
 * logits), which gives a second, smaller radius: within it no float32 image gets another answer
 * from bcop_model_forward. */
#ifndef BCOP_NN_CERTIFICATE_H
#define BCOP_NN_CERTIFICATE_H

#include "nn/model.h"

typedef struct bcop_certificate {
    const bcop_model *model; /* not owned */
    int run;                 /* images per call */
    double lipschitz;        /* L: of f, in pixel units */
    double *bound;           /* [layers] */
    double *pair;            /* [classes][classes] */
    double **stored;         /* [layers] operators in float64 */
    bcop_rounding *rounding; /* [layers] */
    double float_slope;      /* D */
    double float_reach;      /* radius up to which no float32 sum can overflow */
    double *error;           /* [run] e, of the last call */
    double *float_error;     /* [run] E, of the last call */
    double *buffer[2];       /* activations [run][largest] */
    double *scratch;
    float *narrow; /* the largest stored operator */
} bcop_certificate;

/* Takes the memory, in both passes of the arena, for runs of `run` images of a planned model.
 * Local. */
void bcop_certificate_plan(bcop_certificate *certificate, const bcop_model *model, int run,
                           bcop_arena *arena);

/* Everything that does not depend on images, once the model has its operators. Takes as long as
 * bcop_model_bound. Local. */
void bcop_certificate_prepare(bcop_certificate *certificate);

/* Logits [n][classes] of x[n][in] in float64, and the errors of each; they belong to the
 * certificate until the next call. Local. */
const double *bcop_certificate_forward(bcop_certificate *certificate, int n, const float *x);

/* What is proven of one image and a label. Radii are 0 unless the label is the proven answer. */
typedef struct bcop_verdict {
    double margin;         /* computed z_label - max over j != label of z_j */
    double rounding;       /* bound on the error of that, for the certificate of f */
    double float_rounding; /* the same for the float32 forward pass at the image itself */
    double radius;         /* f: any smaller perturbation keeps the answer */
    double float_radius;   /* float32 forward pass: likewise */
} bcop_verdict;

/* From logits z[classes] of image i of the last call. Local. */
bcop_verdict bcop_certificate_judge(const bcop_certificate *certificate, int i, const double *z,
                                    int label);

/* Whether a radius covers eps, the double nearest to a decimal or a fraction of decimals. Local. */
bool bcop_certificate_covers(double radius, double eps);

#endif
