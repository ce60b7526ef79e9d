#include "base/interval.h"

#include <math.h>

/* The regularised incomplete beta function by its continued fraction (Abramowitz and Stegun
   26.5.8), evaluated from the front (modified Lentz), for x below the mean a / (a + b). */
static double beta_below_mean(double a, double b, double x) {
    const double tiny = 1e-300;
    const double front =
        exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x)) / a;
    double c = 1, d = 1 / fmax(tiny, 1 - (a + b) * x / (a + 1)), f = d;
    for (int m = 1; m < 100000; m++) {
        const double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
        const double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        const double term[2] = {even, odd};
        double change = 1;
        for (int i = 0; i < 2; i++) {
            d = 1 + term[i] * d;
            c = 1 + term[i] / c;
            d = 1 / (fabs(d) < tiny ? tiny : d);
            c = fabs(c) < tiny ? tiny : c;
            change = c * d;
            f *= change;
        }
        if (fabs(change - 1) < 1e-15)
            break;
    }
    return front * f;
}

/* I_x(a, b) = P(X >= a) for X binomial with a + b - 1 trials of probability x. */
static double incomplete_beta(double a, double b, double x) {
    if (x <= 0 || x >= 1)
        return x <= 0 ? 0 : 1;
    return x < (a + 1) / (a + b + 2) ? beta_below_mean(a, b, x) : 1 - beta_below_mean(b, a, 1 - x);
}

/* The x with I_x(a, b) = p. */
static double quantile(double a, double b, double p) {
    double low = 0, high = 1;
    while (high - low > 1e-15) {
        const double x = (low + high) / 2;
        if (x <= low || x >= high)
            break;
        *(incomplete_beta(a, b, x) < p ? &low : &high) = x;
    }
    return (low + high) / 2;
}

void bcop_interval_share(long successes, long trials, double confidence, double *low,
                         double *high) {
    const double k = (double)successes, n = (double)trials, tail = (1 - confidence) / 2;
    *low = successes <= 0 ? 0 : quantile(k, n - k + 1, tail);
    *high = successes >= trials ? 1 : quantile(k + 1, n - k, 1 - tail);
}
