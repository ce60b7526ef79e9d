/* run: serial */
#include "base/interval.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void expect(long k, long n, double low, double high, double tolerance) {
    double a, b;
    bcop_interval_share(k, n, 0.95, &a, &b);
    if (!(fabs(a - low) <= tolerance && fabs(b - high) <= tolerance))
        fail_msg("%ld of %ld: [%.9f, %.9f], expected [%.9f, %.9f]", k, n, a, b, low, high);
}

/* Tables of exact 95 % limits, to their four digits. */
static void published_values(void **state) {
    (void)state;
    expect(0, 10, 0, 0.3085, 5e-5);
    expect(1, 10, 0.0025, 0.4450, 5e-5);
    expect(2, 10, 0.0252, 0.5561, 5e-5);
    expect(3, 10, 0.0667, 0.6525, 5e-5);
    expect(5, 10, 0.1871, 0.8129, 5e-5);
    expect(10, 10, 0.6915, 1, 5e-5);
    expect(1, 20, 0.0013, 0.2487, 5e-5);
    expect(10, 100, 0.0490, 0.1762, 5e-5);
}

static void closed_forms(void **state) {
    (void)state;
    static const long sizes[] = {1, 7, 1000, 10000, 60000};
    for (int i = 0; i < 5; i++) {
        const double n = (double)sizes[i], edge = pow(0.025, 1 / n);
        expect(0, sizes[i], 0, 1 - edge, 1e-12);
        expect(sizes[i], sizes[i], edge, 1, 1e-12);
    }
    expect(0, 0, 0, 1, 0);
}

/* P(X >= k) by adding up the binomial distribution from its largest term down. */
static long double upper_tail(long k, long n, long double p) {
    long double sum = 0;
    for (long x = k; x <= n; x++)
        sum += expl(lgammal(n + 1.0L) - lgammal(x + 1.0L) - lgammal(n - x + 1.0L) +
                    (long double)x * logl(p) + (long double)(n - x) * log1pl(-p));
    return sum;
}

static void tails_are_what_they_should(void **state) {
    (void)state;
    static const long cases[][2] = {{1, 3},        {17, 53},   {500, 1000},
                                    {4804, 10000}, {1, 10000}, {9999, 10000},
                                    {9816, 10000}, {3, 5000},  {2500, 5000}};
    static const double confidences[] = {0.9, 0.95, 0.999};
    for (int i = 0; i < 9; i++)
        for (int c = 0; c < 3; c++) {
            const long k = cases[i][0], n = cases[i][1];
            double low, high;
            bcop_interval_share(k, n, confidences[c], &low, &high);
            const double tail = (1 - confidences[c]) / 2;
            assert_true(fabs((double)upper_tail(k, n, (long double)low) / tail - 1) < 1e-8);
            const double below = 1 - (double)upper_tail(k + 1, n, (long double)high);
            assert_true(fabs(below / tail - 1) < 1e-8);
            assert_true(low < (double)k / (double)n && high > (double)k / (double)n);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_values),
        cmocka_unit_test(closed_forms),
        cmocka_unit_test(tails_are_what_they_should),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
