/* Prefetch: one thread reads and augments the next batch while the caller computes on this one.
 *
 * Deterministic: batch content depends on (seed, epoch, step) alone. All memory is taken at
 * opening; nothing is allocated per batch. */
#ifndef BCOP_DATA_PREFETCH_H
#define BCOP_DATA_PREFETCH_H

#include "data/augment.h"
#include "data/dataset.h"

typedef struct bcop_prefetch_plan {
    const bcop_dataset *dataset; /* not owned; must outlive the prefetch */
    bcop_augment_rule augment;
    int crop_padding;
    uint64_t seed;
    long batch;     /* global batch; steps per epoch = floor(count / batch) */
    long first_row; /* this rank's rows of every global batch: first_row .. first_row + rows - 1 */
    long rows;
    long first_step; /* global step (from 0) of the first batch that will be asked for */
} bcop_prefetch_plan;

/* One batch as this rank sees it; valid until the next bcop_prefetch_next. */
typedef struct bcop_batch {
    const float *x;      /* [rows][height][width][channels] */
    const int *label;    /* [rows] */
    const long *example; /* [rows] indices in the dataset */
    long step;           /* global step */
    long epoch;          /* step / steps per epoch */
} bcop_batch;

typedef struct bcop_prefetch bcop_prefetch;

/* Starts the thread, which at once begins with first_step. BCOP_CONFIG when the dataset has fewer
 * examples than one batch. Local. */
bcop_status bcop_prefetch_open(const bcop_prefetch_plan *plan, bcop_prefetch **prefetch);

/* Waits for the next step's batch, gives it out, and sets the thread to work on the one after. The
 * pixel-reading thread cannot fail: files were checked at opening. Local. */
void bcop_prefetch_next(bcop_prefetch *prefetch, bcop_batch *batch);

void bcop_prefetch_close(bcop_prefetch *prefetch); /* NULL is allowed */

#endif
