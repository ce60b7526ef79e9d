/* The trainer: data-parallel training of one experiment into one run directory.
 *
 * One step: the sampler gives this rank its lanes of the global batch (prefetched); per lane
 * forward, loss, backward; the step's record is agreed on; lane gradients are summed in the lane
 * tree and dense factors gathered; gradients are pulled back to the blocks; the stage projects,
 * steps, retracts; the operators are built anew. Training gives the same bits on any number of
 * ranks up to `lanes`. */
#ifndef BCOP_TRAIN_TRAINER_H
#define BCOP_TRAIN_TRAINER_H

#include "comm/comm.h"
#include "train/experiment.h"

typedef enum bcop_resume_mode {
    BCOP_RESUME_AUTO,
    BCOP_RESUME_NEVER,
    BCOP_RESUME_FILE
} bcop_resume_mode;

typedef struct bcop_train_request {
    const char *run; /* run directory; NULL: checkpoints/<name> */
    bcop_resume_mode resume;
    const char *resume_file; /* CHECKPOINT to continue from, for BCOP_RESUME_FILE */
    const char *init_from;   /* CHECKPOINT whose parameters to start from, or NULL */
    long max_steps;          /* stop when the run's global step reaches it; < 0: none */
    double max_seconds;      /* of this start; <= 0: none */
    bool dry_run;
} bcop_train_request;

/* Trains. BCOP_OK when the run is finished (or max_steps reached), BCOP_INTERRUPTED or BCOP_STOPPED
 * with a checkpoint saved, BCOP_DIVERGED, or what went wrong before. Collective. */
bcop_status bcop_trainer_run(const bcop_comm *comm, const bcop_experiment *experiment,
                             const bcop_train_request *request);

#endif
