/* Where a run starts: at step 0, from its own newest valid checkpoint, from another run's, or from
 * another's parameters. Rank 0 alone looks at the run directory and decides. */
#ifndef BCOP_TRAIN_RESUME_H
#define BCOP_TRAIN_RESUME_H

#include "train/checkpoint.h"
#include "train/trainer.h"

typedef struct bcop_resume {
    const bcop_comm *comm;
    const bcop_experiment *experiment;
    const bcop_train_request *request;
    const char *run;           /* the run directory */
    uint64_t data_fingerprint; /* of the training files */
    bcop_checkpoint *checkpoint;
    bcop_stage *stage;
} bcop_resume;

/* Fills parameters, optimizer state and *progress.
 * A checkpoint of the run that is damaged is named, set aside (step-NNNNNNNN.bad; not in a dry
 * run), and the next older one is used. Errors: BCOP_BAD_DATA when there are checkpoints but none
 * is valid, or when the training data changed; BCOP_CONFIG naming key and values when the
 * configuration does not fit; BCOP_CANNOT_CREATE when --resume never or FILE meets a run, unless a
 * launcher starts the run again (BCOP_RESTART=1): then it goes on from its own checkpoints, and
 * until there is one from FILE or step 0 again.
 * Collective. */
bcop_status bcop_resume_start(const bcop_resume *resume, bcop_progress *progress);

#endif
