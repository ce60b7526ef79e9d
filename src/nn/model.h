/* The model: a list of layers built from the configuration, planned memory, forward and backward.
 *
 * f(x) = layers((x - mean) / std), per input channel. The Lipschitz constant in pixel units is at
 * most the product of the layers' bounds and the input scale max 1/std.
 *
 * It works on a *group* of images at a time, cut into *runs* (lanes of the batch). Layers before
 * the first one that goes by rows (the head: convolutions) take one run at a time, which stays in
 * cache; that one and all after it (the tail: dense layers) take the whole group, as their products
 * want many rows. Activations live in buffers that alternate; each layer keeps what its gradients
 * need in the tape. */
#ifndef BCOP_NN_MODEL_H
#define BCOP_NN_MODEL_H

#include "nn/layer.h"

enum { BCOP_MODEL_GROUP = 64 }; /* images that make a large operator's product efficient */

typedef struct bcop_model {
    bcop_shape in;
    int classes;
    int count;
    bcop_layer *layer; /* [count] */
    int parameters;
    bcop_parameter **parameter; /* [parameters] of all layers in order */
    bool normalised;            /* mean or std are not 0 and 1 */
    float *mean, *inverse_std;  /* [channels] */
    int tail;                   /* its first layer; count: there is none */
    int run, group;             /* images */
    bool training;
    long lane_length;     /* floats of the lane gradient of all layers */
    float **input;        /* [count] of [images][in], of factored layers: their factors */
    float **slope;        /* [count] of [images][out]: gradients of their outputs, the other factor;
                             of other layers of the tail with parameters [group][out] */
    float **image;        /* [count] of [images][cols], of factored layers: left U */
    float **saved;        /* [count] of [group][saved] */
    float *narrow[2];     /* activations of the head [run][largest] */
    float *wide[2];       /* of the tail [group][largest] */
    float *head_gradient; /* [group][the tail's input], after backward */
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

/* Images of a group: whole runs, BCOP_MODEL_GROUP or a little more, at most `images` of them. */
int bcop_model_group(int run, int images);

/* Takes the memory, in both passes of the arena: for groups of up to `group` images in runs of
 * `run`, and when training for backward. Without training the parameters' values are taken here
 * too; with it they and the factors belong to those who bring gradients to the parameters:
 * parameter->value and the factored layers' model->input, slope and image are set by the caller.
 * Local. */
void bcop_model_plan(bcop_model *model, int run, int group, bool training, bcop_arena *arena);

/* Makes the layers' operators from the blocks: after every change of the parameters. Local. */
void bcop_model_build(bcop_model *model);

/* Logits [n][classes] of x[n][in], n <= group; they belong to the model until its next call. The
 * factors are kept from row `row` on. Local, allocates nothing. */
const float *bcop_model_forward(bcop_model *model, int n, int row, const float *x);

/* After forward with the same n and row: the tail's backward, from gz[n][classes] =
 * dloss/dlogits. Completes these rows' factors. Local. */
void bcop_model_backward(bcop_model *model, int n, int row, const float *gz);

/* Called when the lane gradient of layer `index` is complete for a run. */
typedef void bcop_model_hook(void *context, int index);

/* After backward with the same row: the rest of it for the n images (a run) from `first` of the
 * group on: their lane gradient (overwritten, [lane_length]); `done` (NULL: nobody) hears of each
 * layer with parameters, last to first. To be called once per run, in any order. Local but for what
 * `done` does. */
void bcop_model_run(bcop_model *model, int n, int row, int first, float *lane_gradient,
                    bcop_model_hook *done, void *context);

/* After forward with row 0 and the same n, training or not: gx[n][in] = the gradient by the pixels
 * of the sum of gz[n][classes] times the logits. No gradient of a parameter is formed. Local,
 * allocates nothing. */
void bcop_model_backward_input(bcop_model *model, int n, const float *gz, float *gx);

/* max over channels of 1/std, as the float32 number the model multiplies by. */
double bcop_model_input_scale(const bcop_model *model);

/* Proven upper bound on the L2 Lipschitz constant in pixel units: product of the layers' bounds
 * (each written to layer_bound[count] unless NULL) and the input scale, rounded up. Local. */
double bcop_model_bound(const bcop_model *model, double *layer_bound);

#endif
