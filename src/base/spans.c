#include "base/spans.h"

#include <stdio.h>
#include <stdlib.h>

bool bcop_spans_on;

static bcop_span *ring; /* [2 BCOP_SPANS_KEPT]: the second half puts the kept ones in order */
static long added;

bcop_status bcop_spans_open(void) {
    ring = calloc(2 * (size_t)BCOP_SPANS_KEPT, sizeof *ring);
    if (!ring)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory for the profile");
    added = 0;
    bcop_spans_on = true;
    return BCOP_OK;
}

void bcop_spans_close(void) {
    bcop_spans_on = false;
    free(ring);
    ring = NULL;
}

void bcop_spans_add(const char *category, const char *name, double begin, double amount) {
    bcop_span *s = &ring[added++ % BCOP_SPANS_KEPT];
    snprintf(s->category, sizeof s->category, "%s", category);
    snprintf(s->name, sizeof s->name, "%s", name);
    s->begin = begin;
    s->end = bcop_clock_seconds();
    s->amount = amount;
}

const bcop_span *bcop_spans_stop(long *count) {
    bcop_spans_on = false;
    *count = added < BCOP_SPANS_KEPT ? added : BCOP_SPANS_KEPT;
    bcop_span *sorted = ring + BCOP_SPANS_KEPT;
    for (long i = 0; i < *count; i++)
        sorted[i] = ring[(added - *count + i) % BCOP_SPANS_KEPT];
    return sorted;
}
