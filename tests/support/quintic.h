/* The quintics of ortho/polar.h, found again in float64 by Remez' exchange. */
#ifndef BCOP_TESTS_QUINTIC_H
#define BCOP_TESTS_QUINTIC_H

/* q[3] of a x + b x^3 + c x^5: nearest to 1 on the interval that the quintics before `i` leave of
 * [0.1, 1], divided by its maximum; from the fourth on (15, -10, 3) / 8. */
void quintic_find(int i, double q[3]);

/* The scale of m[rows][cols]: the root of min(||G||_inf, ||G||_F), G = m^T m. */
double quintic_scale(int rows, int cols, const double *m);

typedef struct quintic_rule {
    double scale;
    int iterations;
} quintic_rule;

/* What becomes of a singular value; `rule`: a quintic_rule. */
double quintic_map(double x, const void *rule);

#endif
