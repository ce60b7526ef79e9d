#include "ortho/symmetric.h"

#include "linalg/product.h"

#include <math.h>

/* Eight sums side by side: one alone would wait for each addition. */
double bcop_symmetric_distance(int n, double diagonal, const float *s) {
    enum { SUMS = 8 };
    double total = 0;
    for (int i = 0; i < n; i++) {
        const float *row = s + (long)i * n;
        const double here = (double)row[i] - diagonal;
        double sum[SUMS] = {0};
        int j = i + 1;
        for (; j + SUMS <= n; j += SUMS)
            for (int k = 0; k < SUMS; k++)
                sum[k] += (double)row[j + k] * (double)row[j + k];
        for (; j < n; j++)
            sum[0] += (double)row[j] * (double)row[j];
        for (int k = 1; k < SUMS; k++)
            sum[0] += sum[k];
        total += here * here + 2 * sum[0];
    }
    return sqrt(total);
}

double bcop_symmetric_largest(int n, float *s) {
    double squares = 0, infinity = 0;
    bcop_product_mirror(n, s);
    for (int i = 0; i < n; i++) {
        double row = 0;
        for (int j = 0; j < n; j++) {
            const double x = fabs((double)s[(long)i * n + j]);
            row += x;
            squares += x * x;
        }
        infinity = fmax(infinity, row); /* drops NaN */
    }
    return isfinite(squares) ? fmin(sqrt(squares), infinity) : INFINITY;
}

void bcop_symmetric_combine(int n, double diagonal, double a, const float *x, double b,
                            const float *y, float *to) {
    const float fa = (float)a, fb = (float)b;
    for (int i = 0; i < n; i++) {
        for (long k = (long)i * n + i; k < (i + 1L) * n; k++)
            to[k] = fa * x[k] + fb * y[k];
        to[(long)i * n + i] += (float)diagonal;
    }
}

void bcop_symmetric_scale(long count, double factor, float *x) {
    for (long i = 0; i < count; i++)
        x[i] *= (float)factor;
}
