/* What a run says of its steps and evaluations: lines of metrics.jsonl, and one for people. All
 * functions are Local, for rank 0. */
#ifndef BCOP_TRAIN_REPORT_H
#define BCOP_TRAIN_REPORT_H

#include "train/checkpoint.h"
#include "train/evaluate.h"
#include "train/metrics.h"

typedef struct bcop_report_step_taken {
    const bcop_progress *progress; /* after the step */
    long steps, steps_per_epoch;   /* of the whole run, of one epoch */
    double loss, accuracy, lr;
    int iterations;
    double seconds, typical; /* of this step, of one like it */
} bcop_report_step_taken;

void bcop_report_step(bcop_metrics *metrics, const bcop_experiment *experiment,
                      const bcop_report_step_taken *taken);

/* The line is written at once. */
void bcop_report_evaluation(bcop_metrics *metrics, const bcop_experiment *experiment,
                            const bcop_progress *progress, bcop_split split,
                            const bcop_evaluation *evaluation);

#endif
