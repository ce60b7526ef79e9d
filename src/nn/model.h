/* The model: a list of layers built from the configuration, planned memory, forward and backward.
 *
 * f(x) = layers((x - mean) / std), per input channel. The Lipschitz constant in pixel units is at
 * most the product of the layers' bounds and the input scale max 1/std.
 *
 * It works on one *run* of images at a time (a lane of the batch, or a piece of an evaluation).
 * Activations live in two buffers that alternate; each layer keeps what its backward needs in the
 * tape. */
#ifndef BCOP_NN_MODEL_H
#define BCOP_NN_MODEL_H

#include "nn/layer.h"

typedef struct bcop_model {
    bcop_shape in;
    int classes;
    int count;
    bcop_layer *layer; /* [count] */
    int parameters;
    bcop_parameter **parameter; /* [parameters] of all layers in order */
    bool normalised;            /* mean or std are not 0 and 1 */
    float *mean, *inverse_std;  /* [channels] */
    int run;                    /* images per run */
    bool training;
    long lane_length; /* floats of the lane gradient of all layers */
    float **left;     /* [count] of [rows][rows of the first parameter], of factored layers */
    float **right;    /* [count] of [rows][its cols] */
    float *buffer[2]; /* activations [run][largest] */
    float **saved;    /* [count] of [run][saved] */
    float *scratch;
    double *bound_work;
} bcop_model;

/* One entry of the model list: its kind, and the node of its options, which is NULL for a bare name
 * (`- maxmin` and `- maxmin: {}` mean the same). BCOP_CONFIG when it is no known layer. Local. */
bcop_status bcop_model_entry(const bcop_node *entry, const bcop_layer_kind **kind,
                             const bcop_node **options);

/* Builds the layers from the configuration's `model` list for inputs of shape `in`; the last layer
 * must give `classes` values. mean, std: one number, or one per channel. `batch`: images of a
 * training step, 0 to evaluate only. `list` must outlive the model. BCOP_CONFIG naming the place.
 * Local. */
bcop_status bcop_model_create(const bcop_node *list, const bcop_node *input, const bcop_reals *mean,
                              const bcop_reals *std, bcop_shape in, int classes, int batch,
                              bcop_model **model);
void bcop_model_free(bcop_model *model); /* NULL is allowed */

/* Takes the memory, in both passes of the arena: for runs of `run` images, and when training for
 * backward. Without training the parameters' values and a run's factors are taken here too; with it
 * they belong to those who bring gradients to the parameters: model->left, right and
 * parameter->value are set by the caller. Local. */
void bcop_model_plan(bcop_model *model, int run, bool training, bcop_arena *arena);

/* Makes the layers' operators from the blocks: after every change of the parameters. Local. */
void bcop_model_build(bcop_model *model);

/* Logits [n][classes] of x[n][in], n <= run; they belong to the model until its next call. The
 * factors are kept from row `row` on. Local, allocates nothing. */
const float *bcop_model_forward(bcop_model *model, int n, int row, const float *x);

/* Called when the lane gradient and the factors of layer `index` are complete for a run. */
typedef void bcop_model_hook(void *context, int index);

/* After forward with the same n and row: from gz[n][classes] = dloss/dlogits the lane gradient of
 * this run (overwritten, [lane_length]) and the factors; `done` (NULL: nobody) hears of each layer
 * with parameters, last to first. Local but for what `done` does. */
void bcop_model_backward(bcop_model *model, int n, int row, const float *gz, float *lane_gradient,
                         bcop_model_hook *done, void *context);

/* max over channels of 1/std, as the float32 number the model multiplies by. */
double bcop_model_input_scale(const bcop_model *model);

/* Proven upper bound on the L2 Lipschitz constant in pixel units: product of the layers' bounds
 * (each written to layer_bound[count] unless NULL) and the input scale, rounded up. Local. */
double bcop_model_bound(const bcop_model *model, double *layer_bound);

#endif
