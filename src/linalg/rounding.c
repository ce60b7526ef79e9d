#include "linalg/rounding.h"

#include <float.h>
#include <math.h>

double bcop_rounding_gamma(double terms, double unit) {
    const double t = terms * unit;
    return t < 0.5 ? t / (1 - t) * (1 + 4 * DBL_EPSILON) : INFINITY;
}

/* A factor that makes a computed sum of `terms` nonnegative numbers an upper bound of the exact
   one; 16 more cover a few operations on it. */
static double upward(double terms) {
    return 1 + 2 * bcop_rounding_gamma(terms + 16, DBL_EPSILON / 2);
}

double bcop_rounding_absolute(int out, int in, int taps, const double *stored) {
    double largest_row = 0, largest_column = 0;
    const long row_length = (long)in * taps;
    for (int o = 0; o < out; o++) {
        double sum = 0;
        for (long i = 0; i < row_length; i++)
            sum += fabs(stored[o * row_length + i]);
        largest_row = fmax(largest_row, sum);
    }
    for (int i = 0; i < in; i++) {
        double sum = 0;
        for (int o = 0; o < out; o++)
            for (int t = 0; t < taps; t++)
                sum += fabs(stored[o * row_length + (long)i * taps + t]);
        largest_column = fmax(largest_column, sum);
    }
    return sqrt(largest_row * largest_column) *
           upward((double)row_length + (double)out * (double)taps);
}

double bcop_rounding_norm(long count, const double *x) {
    double sum = 0;
    for (long i = 0; i < count; i++)
        sum += x[i] * x[i];
    /* squares of less than 1e-154 vanish */
    return sqrt(sum) * upward((double)count) + 1e-150 * sqrt((double)count);
}

double bcop_rounding_up(double value, int places) {
    const double unit = pow(10, places), up = ceil(value * unit) / unit;
    if (!(up < INFINITY)) /* it has no such places, or is none */
        return value;
    return up < value ? up + 1 / unit : up;
}

double bcop_rounding_down(double value, int places) {
    return -bcop_rounding_up(-value, places);
}
