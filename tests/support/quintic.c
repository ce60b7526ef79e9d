#include "quintic.h"

#include "oracle.h"

#include <math.h>
#include <stdlib.h>

/* a x + b x^3 + c x^5 + e (-1)^j = 1 at x[j]; q = a, b, c, e. Gauss with pivots. */
static void solve(const double x[4], double q[4]) {
    double m[4][5];
    for (int j = 0; j < 4; j++) {
        m[j][0] = x[j], m[j][1] = pow(x[j], 3), m[j][2] = pow(x[j], 5);
        m[j][3] = j % 2 ? -1 : 1, m[j][4] = 1;
    }
    for (int k = 0; k < 4; k++) {
        int best = k;
        for (int j = k; j < 4; j++)
            best = fabs(m[j][k]) > fabs(m[best][k]) ? j : best;
        for (int i = 0; i < 5; i++) {
            const double t = m[k][i];
            m[k][i] = m[best][i], m[best][i] = t;
        }
        for (int j = 0; j < 4; j++) {
            const double f = j == k ? 0 : m[j][k] / m[k][k];
            for (int i = 0; i < 5; i++)
                m[j][i] -= f * m[k][i];
        }
    }
    for (int k = 0; k < 4; k++)
        q[k] = m[k][4] / m[k][k];
}

/* The best on [low, 1]; returns its error. */
static double nearest(double low, double q[3]) {
    double x[4] = {low, (3 * low + 1) / 4, (low + 3) / 4, 1}, s[4];
    for (int round = 0; round < 60; round++) {
        solve(x, s);
        const double root = sqrt(9 * s[1] * s[1] - 20 * s[0] * s[2]);
        x[1] = sqrt((-3 * s[1] - root) / (10 * s[2])); /* where its slope is 0 */
        x[2] = sqrt((-3 * s[1] + root) / (10 * s[2]));
    }
    for (int k = 0; k < 3; k++)
        q[k] = s[k];
    return s[3];
}

void quintic_find(int i, double q[3]) {
    double low = 0.1;
    if (i > 2) {
        q[0] = 1.875, q[1] = -1.25, q[2] = 0.375;
        return;
    }
    for (int k = 0; k <= i; k++) {
        const double e = nearest(low, q);
        low = (1 - e) / (1 + e);
        for (int j = 0; j < 3; j++)
            q[j] /= 1 + e;
    }
}

double quintic_scale(int rows, int cols, const double *m) {
    const long square = (long)cols * cols;
    double *mt = oracle_doubles((long)rows * cols), *g = oracle_doubles(square), largest = 0;
    oracle_transpose(rows, cols, m, mt);
    oracle_multiply(cols, cols, rows, mt, m, g);
    for (int i = 0; i < cols; i++) {
        double row = 0;
        for (int j = 0; j < cols; j++)
            row += fabs(g[(long)i * cols + j]);
        largest = fmax(largest, row);
    }
    const double scale = sqrt(fmin(largest, oracle_frobenius(square, g)));
    free(mt), free(g);
    return scale;
}

double quintic_map(double x, const void *rule) {
    const quintic_rule *r = rule;
    x /= r->scale;
    for (int i = 0; i < r->iterations; i++) {
        double q[3];
        quintic_find(i, q);
        x *= q[0] + x * x * (q[1] + x * x * q[2]);
    }
    return x;
}
