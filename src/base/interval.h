/* Confidence intervals of a share. */
#ifndef BCOP_BASE_INTERVAL_H
#define BCOP_BASE_INTERVAL_H

/* The Clopper-Pearson interval [low, high] of the probability behind `successes` in `trials`
 * independent trials (Biometrika 26, 1934): the p at which P(X >= successes), and that at which
 * P(X <= successes), is (1 - confidence)/2; to about 1e-12. [0, 1] without trials. Local. */
void bcop_interval_share(long successes, long trials, double confidence, double *low, double *high);

#endif
