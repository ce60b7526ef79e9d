/* A worker: everything that one rank holds to train, and one training step.
 *
 * A step: forward and backward of this rank's lanes, while gradients already travel (exchange); the
 * agreement that closes the step, before any state changes; the gradients to their holders; the
 * update of the blocks and their gathering (stage); the layers' operators made anew. */
#ifndef BCOP_TRAIN_WORKER_H
#define BCOP_TRAIN_WORKER_H

#include "data/prefetch.h"
#include "train/checkpoint.h"
#include "train/evaluate.h"
#include "train/exchange.h"

/* The splits of an experiment's data; NULL: there is none. */
typedef struct bcop_worker_data {
    bcop_dataset *split[3]; /* by bcop_split */
} bcop_worker_data;

/* Opens the splits: the test files only where they are. BCOP_NO_INPUT, BCOP_BAD_DATA, BCOP_CONFIG.
 * Local; what is open is to be closed after a failure too. */
bcop_status bcop_worker_open_data(const bcop_experiment *experiment, bcop_worker_data *data);
void bcop_worker_close_data(bcop_worker_data *data);

typedef enum bcop_phase {
    BCOP_PHASE_COMPUTE,  /* forward and backward */
    BCOP_PHASE_AGREE,    /* the step's record; waiting for the slowest rank */
    BCOP_PHASE_EXCHANGE, /* what is left of bringing gradients to their holders */
    BCOP_PHASE_UPDATE,   /* tangent projection, optimizer, retraction, gathering of the blocks */
    BCOP_PHASE_BUILD,    /* operators from the blocks */
    BCOP_PHASES
} bcop_phase;

/* "compute", "agree", ... */
const char *bcop_worker_phase(bcop_phase phase);

/* Parts of a rank's memory. */
typedef enum bcop_memory {
    BCOP_MEMORY_MODEL,    /* operators */
    BCOP_MEMORY_STAGE,    /* parameters, their gradients */
    BCOP_MEMORY_STATE,    /* optimizer state of what this rank holds */
    BCOP_MEMORY_EXCHANGE, /* gradients and factors on their way */
    BCOP_MEMORY_EVALUATE, /* evaluation and the step's record */
    BCOP_MEMORY_TURNS,    /* in turn: activations, scratch of the stage and of bounds, copies for
                             checkpoints */
    BCOP_MEMORIES
} bcop_memory;

const char *bcop_worker_memory(bcop_memory memory);

typedef struct bcop_worker {
    const bcop_comm *comm;
    const bcop_experiment *experiment;
    const bcop_worker_data *data; /* not owned */
    bcop_model *model;
    bcop_stage stage;
    bcop_exchange exchange;
    bcop_checkpoint checkpoint;
    bcop_evaluator evaluator[3]; /* by split; the training split has none */
    bcop_arena arena;
    size_t memory[BCOP_MEMORIES]; /* bytes */
    double *record;               /* {loss, correct} of every lane, a flag of every rank, another */
    float *logit_gradient;        /* [images of a group][classes] */
    /* Called when a phase begins, and after every lane; NULL: nobody. */
    void (*entered)(void *context, bcop_phase phase);
    void *context;
    /* of the last step */
    double loss, accuracy;
    int iterations;
    double seconds[BCOP_PHASES];
    double since; /* when the present phase began */
} bcop_worker;

/* Builds model, stage and exchange, and plans the memory: with bcop_worker_reserve it can train;
 * for an imagined communicator this is all there is to know. BCOP_CONFIG (too few lanes for the
 * ranks, impossible layers) or BCOP_INTERNAL. On failure it is to be closed too. Collective. */
bcop_status bcop_worker_open(bcop_worker *worker, const bcop_comm *comm,
                             const bcop_experiment *experiment, const bcop_worker_data *data);
void bcop_worker_close(bcop_worker *worker);

/* Takes the memory: BCOP_INTERNAL with the number of bytes. Collective. */
bcop_status bcop_worker_reserve(bcop_worker *worker);

/* Starts reading this rank's part of the batches, from global step `first` (from 0) on; to be
 * closed before the worker. Local. */
bcop_status bcop_worker_prefetch(const bcop_worker *worker, long first, bcop_prefetch **prefetch);

/* What ranks tell each other when a step closes. */
typedef struct bcop_worker_flags {
    bcop_status stop; /* in: what was asked of this rank; out: the most urgent of all */
    bool save;        /* in: of rank 0, a checkpoint is due; out: the same on every rank */
} bcop_worker_flags;

/* One step from x[images of this rank][in] and their labels: step number `step` (from 1), learning
 * rates times `factor`. BCOP_DIVERGED when the loss is not finite (nothing has changed) or a block
 * fails. Collective, allocates nothing. */
bcop_status bcop_worker_step(bcop_worker *worker, long step, double factor, const float *x,
                             const int *label, bcop_worker_flags *flags);

/* How often an image passes a layer's operator in forward and backward: forward, the gradient of
 * the input (not of the first layer's), and of the operator (unless that goes by factors). Local.
 */
int bcop_worker_passes(const bcop_layer *layer);

/* The flops of these passes, per image. Local. */
double bcop_worker_flops(const bcop_layer *layer);

/* What this rank hands to MPI in one step with so many Bjorck iterations in every block: each
 * message, and their sum. Local. */
void bcop_worker_list(const bcop_worker *worker, int iterations, bcop_traffic_visitor v);
bcop_traffic bcop_worker_count(const bcop_worker *worker, int iterations);

#endif
