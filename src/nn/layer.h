/* Layers: a kind is one file and one line in layer_registry.c.
 *
 * A layer asks for parameters (orthonormal blocks and biases) and is a differentiable function of
 * them. It works on `n` images at a time, NHWC float32, and knows nothing of MPI. What it gives for
 * an image has the same bits whatever n is, as long as n is a whole number of runs (`run` images, a
 * lane of the batch).
 *
 * The life of a layer: plan (shapes, sizes) -> take (memory) -> build (parameters to the operator,
 * once per update) -> forward, slope and backward -> pull (gradients back to the parameters, once
 * per step). Gradients come by one of two ways:
 *   lane gradient   a vector of sums over the images of a lane, which the caller adds up over lanes
 *                   in a fixed tree, and which pull turns into gradients (convolutions: small
 *                   operators, many pixels; all biases);
 *   factors         for a *factored* layer the gradient of its first parameter is left^T right,
 *                   with left[batch][rows] and right[batch][cols] its flattened inputs and output
 *                   gradients, in one order or the other; whoever has these for the whole batch can
 *                   form any rows of it (dense layers: large operators, few images). */
#ifndef BCOP_NN_LAYER_H
#define BCOP_NN_LAYER_H

#include "base/arena.h"
#include "base/option.h"
#include "base/shape.h"
#include "linalg/parameter.h"
#include "linalg/rounding.h"

enum { BCOP_LAYER_ROWS_MAX = 1024 }; /* of a normalised layer */

typedef struct bcop_layer_kind bcop_layer_kind;

/* What losses and certificates know of a last layer with rows w_i of unit norm (nn/pairs.h). */
typedef struct bcop_layer_pairs {
    double *distance; /* [outputs][outputs], ||w_i - w_j|| of the operator as it is, at most a few
                         roundings too large */
    /* In training, of each image of the group: its label, and dloss/d distance[label][j]. */
    int *label;   /* [group] */
    float *slope; /* [group][outputs], zero at first */
} bcop_layer_pairs;

typedef struct bcop_layer {
    const bcop_layer_kind *kind;
    const bcop_node *where; /* its place in the configuration, for messages; not owned */
    int index;              /* position in the model list */
    char name[24];          /* "00-conv" */
    void *options;          /* the kind's options; owned by the model */
    void *state;            /* the kind's own; owned by the model */
    bcop_shape in, out;
    int parameters;
    bcop_parameter *parameter; /* [parameters]; owned by the model */
    int batch;                 /* images of a training step; 0: the model is only evaluated */
    int run, group;            /* images of a lane and of a group; set before it takes memory */
    long lane_gradient;        /* floats of its lane gradient */
    long lane_at;              /* where it begins in the lane gradient of all layers */
    bool factored;             /* the first parameter's gradient comes by factors */
    bool input_left;           /* of these the inputs are the left one */
    long saved;                /* floats per image kept from forward to backward */
    long bound_work;           /* doubles of workspace for bound */
    bool normalised;           /* the last layer, which has pairs */
    bcop_layer_pairs pairs;
    /* What it costs, for plans. Backward is two such products; only one and slope_share when the
       input's gradient is not wanted. */
    double flops;          /* of the product of forward, per image */
    double slope_share;    /* of those for the input's gradient, what slope does already */
    double build_flops;    /* operator from the parameters */
    double pull_flops;     /* gradients of the parameters from the lane gradient */
    int stored_dimensions; /* of the stored operator (kernel 4, weight 2), 0: none */
    long stored_size[4];
} bcop_layer;

/* What a layer keeps of n images from forward on. */
typedef struct bcop_tape {
    float *saved; /* [n][saved] */
    float *input; /* [n][in] flattened inputs, of a factored layer */
    float *image; /* [n][cols] left U of a factored layer: what its product gives on the tall side's
                     factor, in forward or in backward */
    int first;    /* of the n images, in the group */
    bool input_only; /* backward comes without slope before it */
} bcop_tape;

struct bcop_layer_kind {
    const char *name, *help;
    const bcop_option *options;
    size_t options_size, state_size;
    bool in_place; /* x and y of forward, gy and gx of backward are the same memory */
    bool by_rows;  /* one row per image times a large operator: wants many images at once */
    const char *stored_name; /* "kernel", "weight"; NULL: nothing is stored */

    /* The layer in PyTorch, for `bcop export`: the body of `def forward(self, x)`, lines that end
     * with a newline, without indentation. x is [N, C, H, W] (a vector is C x 1 x 1) and so is what
     * is returned; self.options has the options by key, self.<name> the stored operator and the
     * plain parameters (self.bias may be None); torch and F are there. NULL: networks with this
     * layer cannot be exported. */
    const char *torch;

    /* From layer->in and layer->options: sets out, the parameters' names and shapes, and all sizes.
     * Errors (impossible shapes) are BCOP_CONFIG at layer->where. Local. */
    bcop_status (*plan)(bcop_layer *layer);

    /* Takes the operator's memory, in both passes of the arena. `training`: slope and pull will be
     * called. NULL: needs none. */
    void (*take)(bcop_layer *layer, bool training, bcop_arena *arena);

    /* Floats of scratch for n images. NULL: none. */
    long (*scratch)(const bcop_layer *layer, int n);

    /* Makes the operator from the parameters. NULL: nothing to make. */
    void (*build)(bcop_layer *layer);

    /* y[n][out] from x[n][in]. */
    void (*forward)(const bcop_layer *layer, int n, const float *x, float *y, const bcop_tape *tape,
                    float *scratch);

    /* Overwrites the lane gradient with the sums over these images, from gy[n][out] = dL/dy. NULL:
     * no parameters. */
    void (*slope)(const bcop_layer *layer, int n, const bcop_tape *tape, const float *gy,
                  float *lane_gradient, float *scratch);

    /* gx[n][in] = dL/dx from gy[n][out]; after slope, when both are wanted. Slope and backward may
     * use up what the tape holds. */
    void (*backward)(const bcop_layer *layer, int n, const bcop_tape *tape, float *gy, float *gx,
                     float *scratch);

    /* Overwrites the parameters' gradients (a factored layer's: all but the first's) from the lane
     * gradient summed over the batch. NULL: no parameters. */
    void (*pull)(bcop_layer *layer, const float *lane_gradient);

    /* The operator in PyTorch's order: kernel [c_out][c_in][k][k] or weight [out][in]; and back,
     * for layers that are only evaluated: forward then works without the blocks. NULL when
     * stored_name is. */
    void (*store)(const bcop_layer *layer, float *stored);
    void (*load)(bcop_layer *layer, const float *stored);

    /* Proven upper bound on the L2 Lipschitz constant of the float32 operator as a real linear map
     * (DESIGN: certificates), float64 rounding included. work: bound_work doubles. NULL: 1. */
    double (*bound)(const bcop_layer *layer, double *work);

    /* ---- for certificates, docs/CERTIFICATES.md ---- */

    /* Forward in float64 from the stored operator (as store gives it, in float64; NULL without
     * one): y[n][out] of x[n][in]; y is x when in_place. scratch: scratch64 doubles (NULL: none).
     */
    void (*forward64)(const bcop_layer *layer, int n, const double *stored, const double *x,
                      double *y, double *scratch);
    long (*scratch64)(const bcop_layer *layer, int n);

    /* What bounds the rounding of forward (float32) and forward64. NULL: both are exact, as maps
     * that only move values are. */
    bcop_rounding (*rounding)(const bcop_layer *layer, const double *stored);

    /* Of a last layer: proven upper bound on the Lipschitz constant of y_i - y_j as a function of
     * the layer's input, i != j. NULL: sqrt(2) times `bound`. */
    double (*pair)(const bcop_layer *layer, const double *stored, int i, int j);
};

/* All kinds, ending with NULL. */
extern const bcop_layer_kind *const bcop_layer_kinds[];

/* Adds a parameter "<layer name>/<suffix>" to the layer, at whose place pointers to the others may
 * change. BCOP_INTERNAL without memory. Local. */
bcop_status bcop_layer_want(bcop_layer *layer, const char *suffix, int rows, int cols,
                            bool orthonormal);

/* Floats of the stored operator, 0 without one. Local. */
long bcop_layer_stored_count(const bcop_layer *layer);

/* The parameter "<layer name>/bias", or NULL. */
bcop_parameter *bcop_layer_bias(const bcop_layer *layer);

/* y[rows][channels] = bias in every row (zeros without a bias): what products then add to. */
void bcop_layer_fill_bias64(const bcop_layer *layer, long rows, int channels, double *y);

/* The rounding of y = A x + b for a layer whose stored operator is [out][in][taps] and whose
 * outputs are `rows` rows of `out` values, each row with the same bias. Local. */
bcop_rounding bcop_layer_rounding(const bcop_layer *layer, long rows, int out, int in, int taps,
                                  const double *stored);

#endif
