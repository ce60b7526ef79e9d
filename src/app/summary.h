/* Several runs of one experiment, summed up: the mean of their last evaluations and its standard
 * error, s / sqrt(n) with s^2 = sum (x - mean)^2 / (n - 1). */
#ifndef BCOP_APP_SUMMARY_H
#define BCOP_APP_SUMMARY_H

#include "train/history.h"

#include <jansson.h>

typedef struct bcop_summary_mean {
    double mean, error; /* error: NAN for one run */
} bcop_summary_mean;

typedef struct bcop_summary {
    int runs, finished;
    const char *split; /* "test" when every run has evaluated it, else "holdout"; NULL: neither */
    long first, last;  /* the evaluations' steps lie between these */
    bcop_summary_mean loss, clean, certified[BCOP_REALS_MAX];
    const bcop_reals *eps; /* those that every run has; of the first run's history */
    bool has[BCOP_REALS_MAX];
} bcop_summary;

/* Sums up history[count]; the histories must outlive the summary. Local. */
void bcop_summary_make(bcop_summary *summary, const bcop_history history[], int count);

/* One line for each number, in the log. Local. */
void bcop_summary_text(const bcop_summary *summary);

/* {"runs","finished","split","steps":[first,last],"loss":{"mean","error"},"clean":...,
 * "certified":{"36/255":{...}}}; split null without evaluations. The caller's reference. Local. */
json_t *bcop_summary_json(const bcop_summary *summary);

#endif
