#include "linalg/spectral.h"

#include "linalg/product.h"
#include "linalg/rounding.h"

#include <float.h>
#include <math.h>

enum { COMPLEX = 2 }; /* doubles per number */

long bcop_spectral_work(int n) {
    return 3L * COMPLEX * n * n;
}

static double gamma_of(double terms) {
    return bcop_rounding_gamma(terms, DBL_EPSILON / 2);
}

/* What is known of the Gram matrix G of the computed A. */
typedef struct gram {
    int n;
    double off_identity; /* ||G - I||_F */
    double trace;        /* ||A||_F^2 */
    double square;       /* ||G||_F^2 */
    double fourth;       /* ||G^4||_F */
} gram;

/* Turns computed quantities into the bound; every step is pushed up by more than it can lose.
   `terms`: real products in an entry of G. */
static double finish(double terms, gram g, double error) {
    const double slack = 1 + gamma_of(4.0 * g.n * g.n + 64);
    const double rounding = 2 * gamma_of(terms + 4) * g.trace * slack;
    const double near = sqrt(1 + g.off_identity * slack + rounding);
    /* fl(G^2) errs by at most gamma ||G||_F^2 and the square of that by three times gamma
       ||G||_F^4; complex products have 2 sqrt(2) gamma. */
    const double fourth_error = 16 * gamma_of(g.n + 4.0) * pow(g.square * slack, 2);
    /* The sixteenth power of a norm below 1e-18 underflows: adding 1e-18 covers it. */
    const double far = sqrt(pow(g.fourth * slack + fourth_error, 0.25) + rounding) + 1e-18;
    const double bound = (fmin(near, far) + error) * (1 + 8 * DBL_EPSILON);
    return isfinite(g.trace) ? bound : INFINITY; /* fmin drops NaN */
}

double bcop_spectral_bound(int rows, int cols, const double *a, double error, double *work) {
    gram g = {.n = cols};
    double *m = work, *squared = m + (long)cols * cols, *fourth = squared + (long)cols * cols;
    bcop_product_gram_double(rows, cols, a, m);
    for (int i = 0; i < cols; i++) {
        double *row = m + (long)i * cols;
        g.trace += row[i];
        g.off_identity += (row[i] - 1) * (row[i] - 1);
        g.square += row[i] * row[i];
        for (int j = i + 1; j < cols; j++) {
            g.off_identity += 2 * row[j] * row[j];
            g.square += 2 * row[j] * row[j];
            m[(long)j * cols + i] = row[j];
        }
    }
    g.off_identity = sqrt(g.off_identity);
    g.fourth = INFINITY;
    if (g.off_identity > 1e-3) {
        bcop_product_gram_double(cols, cols, m, squared);
        for (int i = 0; i < cols; i++)
            for (int j = i + 1; j < cols; j++)
                squared[(long)j * cols + i] = squared[(long)i * cols + j];
        bcop_product_gram_double(cols, cols, squared, fourth);
        g.fourth = 0;
        for (int i = 0; i < cols; i++)
            for (int j = i; j < cols; j++)
                g.fourth += (j > i ? 2 : 1) * pow(fourth[(long)i * cols + j], 2);
        g.fourth = sqrt(g.fourth);
    }
    return finish(rows, g, error);
}

static double square_abs(double complex z) {
    return creal(z) * creal(z) + cimag(z) * cimag(z);
}

static void mirror_conjugate(int n, double complex *m) {
    for (int i = 0; i < n; i++)
        for (int j = i + 1; j < n; j++)
            m[(long)j * n + i] = conj(m[(long)i * n + j]);
}

double bcop_spectral_bound_complex(int rows, int cols, const double complex *a, double error,
                                   double *work) {
    gram g = {.n = cols};
    double complex *m = (double complex *)work;
    double complex *squared = m + (long)cols * cols, *fourth = squared + (long)cols * cols;
    bcop_product_gram_complex(rows, cols, a, m);
    for (int i = 0; i < cols; i++) {
        const double complex *row = m + (long)i * cols;
        g.trace += creal(row[i]);
        g.off_identity += square_abs(row[i] - 1);
        g.square += square_abs(row[i]);
        for (int j = i + 1; j < cols; j++) {
            g.off_identity += 2 * square_abs(row[j]);
            g.square += 2 * square_abs(row[j]);
        }
    }
    g.off_identity = sqrt(g.off_identity);
    g.fourth = INFINITY;
    if (g.off_identity > 1e-3) {
        mirror_conjugate(cols, m);
        bcop_product_gram_complex(cols, cols, m, squared); /* G is Hermitian: G^H G = G^2 */
        mirror_conjugate(cols, squared);
        bcop_product_gram_complex(cols, cols, squared, fourth);
        g.fourth = 0;
        for (int i = 0; i < cols; i++)
            for (int j = i; j < cols; j++)
                g.fourth += (j > i ? 2 : 1) * square_abs(fourth[(long)i * cols + j]);
        g.fourth = sqrt(g.fourth);
    }
    return finish(2.0 * rows, g, error);
}
