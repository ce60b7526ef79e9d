/* Spans of time that this process spends in named pieces of work, for profiles.
 *
 * Off until opened; then the last BCOP_SPANS_KEPT are kept. While off, a span costs a test of a
 * flag. Only the thread that computes may record. All functions are Local. */
#ifndef BCOP_BASE_SPANS_H
#define BCOP_BASE_SPANS_H

#include "base/clock.h"

#include <stdbool.h>

enum { BCOP_SPANS_KEPT = 1 << 13 };

typedef struct bcop_span {
    char category[12]; /* "forward", "mpi", ... */
    char name[40];
    double begin, end; /* bcop_clock_seconds */
    double amount;     /* flops of the work; of messages their bytes */
} bcop_span;

extern bool bcop_spans_on;

/* Takes the memory and begins to record. BCOP_INTERNAL without memory. */
bcop_status bcop_spans_open(void);
void bcop_spans_close(void); /* ends recording and forgets; allowed when not open */

/* Stops recording; what is kept, oldest first, stays until the close. */
const bcop_span *bcop_spans_stop(long *count);

/* For bcop_spans_end alone, of which it is the rare part. */
void bcop_spans_add(const char *category, const char *name, double begin, double amount);

static inline double bcop_spans_begin(void) {
    return bcop_spans_on ? bcop_clock_seconds() : 0;
}

static inline void bcop_spans_end(const char *category, const char *name, double begin,
                                  double amount) {
    if (bcop_spans_on)
        bcop_spans_add(category, name, begin, amount);
}

#endif
