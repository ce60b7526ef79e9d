/* Evaluation of a split on all ranks: loss, clean accuracy and certified accuracy.
 *
 * An example is certified at eps iff its margin z_y - max_{j != y} z_j exceeds sqrt(2) L eps, with
 * L the proven bound on the network's constant (bcop_model_bound); where the last layer is
 * normalised margin and L are those of nn/pairs.h. Every example counts, each once;
 * what is reported does not depend on the number of ranks. */
#ifndef BCOP_TRAIN_EVALUATE_H
#define BCOP_TRAIN_EVALUATE_H

#include "base/option.h"
#include "comm/comm.h"
#include "data/dataset.h"
#include "nn/loss.h"
#include "nn/model.h"

typedef struct bcop_evaluator {
    const bcop_comm *comm;
    bcop_model *model;           /* not owned */
    const bcop_dataset *dataset; /* not owned */
    const bcop_loss_kind *loss;
    const void *loss_options;
    float *x;       /* [run][in] */
    double *margin; /* [count], of every example after a run, on every rank */
    double *value;  /* [count], the losses; follows margin in memory */
} bcop_evaluator;

typedef struct bcop_evaluation {
    long examples;
    double loss, clean; /* means */
    double certified[BCOP_REALS_MAX];
    double lipschitz; /* of the network */
    double constant;  /* L of the margins; the same unless the last layer is normalised */
} bcop_evaluation;

/* Takes the memory, in both passes of the arena, after model and dataset are set. Local. */
void bcop_evaluate_plan(bcop_evaluator *evaluator, bcop_arena *arena);

/* Evaluates the whole dataset with the model as built, runs dealt to the ranks in turn. `work`,
 * when not NULL, is called after every run, and with long_work before the bound, a local
 * computation of unknown length. Collective. */
void bcop_evaluate_run(bcop_evaluator *evaluator, const bcop_reals *eps,
                       bcop_evaluation *evaluation, void (*work)(void *context, bool long_work),
                       void *context);

/* The smallest margin that certifies eps with L = `constant`, sqrt(2) L eps rounded up: an
 * example is certified iff its margin is larger. Local. */
double bcop_evaluate_threshold(double constant, double eps);

#endif
