/* RUN/metrics.jsonl: a line of JSON per step and per evaluation, each step once.
 *
 * Lines wait in memory and go to the file about once a second. When the disk takes none they stay
 * in memory, which grows, until it does. All functions are Local, for rank 0. */
#ifndef BCOP_TRAIN_METRICS_H
#define BCOP_TRAIN_METRICS_H

#include "base/status.h"

#include <stdbool.h>

typedef struct bcop_metrics bcop_metrics;

/* Cuts the file back to what is known at a checkpoint: lines of kind "train" up to `step`, others
 * up to `evaluated`, whole ones only; and opens it to go on. BCOP_CANNOT_CREATE, BCOP_PERMISSION,
 * BCOP_IO. */
bcop_status bcop_metrics_open(const char *run, long step, long evaluated, bcop_metrics **metrics);
void bcop_metrics_close(bcop_metrics *metrics); /* NULL is allowed */

/* Adds text, whole lines in the end, and writes what waits when it is time (`now`: in any case).
 * Allocates only while the disk takes nothing. */
void bcop_metrics_add(bcop_metrics *metrics, bool now, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Brings everything to the disk: before the checkpoint that counts on it. BCOP_IO. */
bcop_status bcop_metrics_sync(bcop_metrics *metrics);

/* How many lines of kind "eval" RUN/metrics.jsonl has for a step. */
int bcop_metrics_evaluations(const char *run, long step);

#endif
