/* Checkpoints: model, optimizer state and progress to a folder step-NNNNNNNN/ with state.h5 and
 * MANIFEST.json (checkpoints/FORMAT.md), and back.
 *
 * eval, certify and inspect use the stored operators (kernel, weight) and biases; resuming uses the
 * blocks. */
#ifndef BCOP_TRAIN_CHECKPOINT_H
#define BCOP_TRAIN_CHECKPOINT_H

#include "ckpt/manifest.h"
#include "ckpt/store.h"
#include "nn/model.h"
#include "ortho/stage.h"
#include "train/experiment.h"

/* What of the training state is neither a parameter nor optimizer state. The sampler's position,
 * the schedule and augmentation follow from the step and the configuration. */
typedef struct bcop_progress {
    long step, epoch;
    long best_step; /* -1: none yet */
    double best_certified, best_clean;
    long evaluated_step; /* of the last evaluation between epochs; -1: none yet */
} bcop_progress;

typedef enum bcop_checkpoint_part {
    BCOP_PART_OPERATOR = 1,  /* kernels and weights */
    BCOP_PART_BIAS = 2,      /* plain parameters */
    BCOP_PART_BLOCK = 4,     /* orthonormal blocks */
    BCOP_PART_OPTIMIZER = 8, /* slots */
} bcop_checkpoint_part;

typedef struct bcop_checkpoint {
    const bcop_comm *comm;
    bcop_model *model;          /* not owned */
    int count;                  /* of fields */
    bcop_field *field;          /* [count] */
    bcop_checkpoint_part *part; /* [count] of each field */
    float **stored;             /* [layers]: the operators in the file's order */
    const bcop_stage *stage;    /* not owned; NULL when only evaluating */
    int first_slot;             /* from here on the fields are optimizer state */
} bcop_checkpoint;

/* Takes the memory for the tables, in both passes of the arena, after model (and stage, NULL when
 * only evaluating) have taken theirs. Local. */
void bcop_checkpoint_plan(bcop_checkpoint *checkpoint, const bcop_comm *comm, bcop_model *model,
                          const bcop_stage *stage, bcop_arena *arena);

/* Commits RUN/step-NNNNNNNN, in ten points with an agreement after each:
 *   1 the state is finite, step and configuration are the same on all ranks
 *   2 state.h5 in RUN/step-NNNNNNNN.tmp: all arrays and attributes, V110 format, flushed
 *   3 its disk space taken
 *   4 the arrays written together; each rank hashes what it wrote, in blocks of the whole array
 *   5 flushed and closed
 *   6 file and folder synced
 *   7 read back: each rank checks another's blocks
 *   8 MANIFEST.json
 *   9 the folder gets its name, RUN is synced
 *  10 the caller may set links and remove old ones (bcop_rundir_link, bcop_rundir_prune)
 * `run` must name the same folder on every rank, whatever its working directory. On failure the
 * temporary folder is removed and every rank has the same status; BCOP_DIVERGED when the state has
 * a number that is not finite. *bytes: the size of state.h5. *there: the folder has its name, also
 * when it then could not be synced (BCOP_IO): it may be lost with the machine. Collective. */
bcop_status bcop_checkpoint_write(bcop_checkpoint *checkpoint, const bcop_experiment *experiment,
                                  const char *run, const bcop_progress *progress,
                                  uint64_t data_fingerprint, long *bytes, bool *there);

/* This machine and job. Local. */
bcop_manifest_origin bcop_checkpoint_origin(const bcop_comm *comm);

/* A checkpoint folder opened for reading. */
typedef struct bcop_snapshot {
    char folder[4096];
    bcop_store *store;
    bool has_manifest;      /* false for a lone state.h5: then nothing can be verified */
    bcop_manifest manifest; /* the same on every rank */
    bcop_progress progress;
    bcop_shape in; /* of the network's input */
    int classes;
    long version;
    char created[32], software[128];
} bcop_snapshot;

/* Opens `folder`, after rank 0 has compared every byte of state.h5 with the manifest's hashes (when
 * there is one), and reads its progress and configuration into *experiment (the caller frees it).
 * BCOP_BAD_DATA, BCOP_NO_INPUT. Collective. */
bcop_status bcop_checkpoint_open(const bcop_comm *comm, const char *folder, bcop_snapshot *snapshot,
                                 bcop_experiment *experiment);
void bcop_checkpoint_close(bcop_snapshot *snapshot);

/* Reads the fields of the given parts (bits of bcop_checkpoint_part) and checks them against the
 * manifest's hashes and for numbers that are not finite; loads operators into the model's layers
 * when they are among them. BCOP_BAD_DATA naming file and field. Collective. */
bcop_status bcop_checkpoint_load(bcop_checkpoint *checkpoint, bcop_snapshot *snapshot,
                                 unsigned parts);

#endif
