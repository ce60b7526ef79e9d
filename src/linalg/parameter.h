/* A parameter: one matrix of the model with its gradient.
 *
 * A *block* is an orthonormal parameter: tall (rows >= cols, cols may be 0), U^T U = I. Layers ask
 * for parameters and are differentiable functions of them; the stage (ortho/stage.h) initialises
 * and updates them and knows nothing of layers. */
#ifndef BCOP_LINALG_PARAMETER_H
#define BCOP_LINALG_PARAMETER_H

#include <stdbool.h>

typedef struct bcop_parameter {
    char name[64]; /* "00-conv/blocks/H", "00-conv/bias": unique in the model */
    int rows, cols;
    bool orthonormal; /* a block; otherwise plain (a bias) */
    bool factored;    /* the gradient is a product of factors: whoever has them can form any rows */
    int depth;        /* then: examples that it is summed over; otherwise 0 */
    int bundle;       /* parameters of one bundle get their gradients together; those of one bundle
                         follow each other in a model */
    float *value;     /* [rows][cols], not owned */
    float *gradient;  /* [rows][cols], not owned; NULL where it is not formed as a whole */
    /* Of a factored parameter, set for an update where rows are held: the gradient is left^T right,
       so U^T times it is image^T right with image = left U, which the layer has computed anyway. */
    const float *image, *right; /* [depth][cols], not owned */
} bcop_parameter;

static inline long bcop_parameter_size(const bcop_parameter *p) {
    return (long)p->rows * p->cols;
}

#endif
