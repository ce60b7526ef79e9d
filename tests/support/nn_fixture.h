/* Models for tests: from YAML text to a built model with random parameters, and its first layer run
 * by itself in memory of exactly the size it asked for. What fails ends the test. */
#ifndef BCOP_TESTS_NN_FIXTURE_H
#define BCOP_TESTS_NN_FIXTURE_H

#include "nn/model.h"

#include <stdint.h>

typedef struct nn_fixture {
    bcop_config *config;
    bcop_model *model;
    bcop_layer *layer; /* the model's first */
    bcop_arena arena;
    bcop_tape tape;
    float *lane; /* [lane_gradient] of the layer, of the last nn_fixture_backward */
} nn_fixture;

/* What the model is for; zeros and NULL are defaults. */
typedef struct nn_setting {
    const char *list; /* the value of `model:`, e.g. "[maxmin, dense: {units: 3}]" */
    bcop_shape in;
    int classes;                  /* values the last layer gives */
    const bcop_reals *mean, *std; /* NULL: 0 and 1 */
    int run, group, rows;         /* 0: run 1, group and rows as run */
    int batch;                    /* as the layers are told; 0: rows */
    bool evaluating;              /* not training */
} nn_setting;

/* Parses and creates only: the status of bcop_model_create, for tests of errors. On failure nothing
 * is left to close. */
bcop_status nn_fixture_create(const nn_setting *setting, nn_fixture *fixture);

/* Creates, plans, fills the parameters (random orthonormal blocks rounded to float32, normal
 * biases) and builds. */
nn_fixture nn_fixture_open(const nn_setting *setting, uint64_t seed);
void nn_fixture_close(nn_fixture *fixture);

/* Copies of the parameters in float64, one array each; free with nn_fixture_free_parameters. */
double **nn_fixture_parameters(const nn_fixture *fixture);
void nn_fixture_free_parameters(const nn_fixture *fixture, double **parameters);

/* The stored operator of a layer in float64, to be freed. */
double *nn_fixture_stored(const bcop_layer *layer);

/* Loads every layer's stored operator and bias of `from` into `to`. */
void nn_fixture_load(const nn_fixture *from, nn_fixture *to);

/* All parameters' gradients as a whole, from the lane gradient summed over the batch and the
 * factors of `rows` images. Training only. */
void nn_fixture_pull(nn_fixture *fixture, int rows, const float *sum);

/* The first layer by itself: y[n][out] of x[n][in], to be freed. Keeps the tape. */
float *nn_fixture_forward(nn_fixture *fixture, int n, const float *x);

/* After it: the parameters' gradients and gx[n][in] from gy[n][out]. Training only. */
void nn_fixture_backward(nn_fixture *fixture, int n, const float *gy, float *gx);

#endif
