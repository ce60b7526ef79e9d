/* Symmetric matrices s[n][n] of which the upper triangle alone is set and read. All are Local. */
#ifndef BCOP_ORTHO_SYMMETRIC_H
#define BCOP_ORTHO_SYMMETRIC_H

/* ||S - diagonal I||_F, in float64. */
double bcop_symmetric_distance(int n, double diagonal, const float *s);

/* A cheap bound on the largest eigenvalue of a semidefinite S: the smaller of the infinity norm
 * (largest sum of magnitudes of a row) and the Frobenius norm, in float64; infinity when S is not
 * finite. Sets the lower triangle too. */
double bcop_symmetric_largest(int n, float *s);

/* to = diagonal I + a X + b Y; to may be x or y. */
void bcop_symmetric_combine(int n, double diagonal, double a, const float *x, double b,
                            const float *y, float *to);

/* x = factor x, of so many floats. */
void bcop_symmetric_scale(long count, double factor, float *x);

/* A product, formed in other memory, takes its factor's place. */
static inline void bcop_symmetric_turn(float **factor, float **product) {
    float *old = *factor;
    *factor = *product;
    *product = old;
}

#endif
