/* run: serial */
#include "linalg/rounding.h"
#include "oracle.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

/* What is printed lies on the right side of the value, in long double, and is the next decimal. */
static void printed_bounds_are_bounds(void **state) {
    (void)state;
    enum { COUNT = 20000 };
    double *value = oracle_doubles(COUNT);
    oracle_random(1, COUNT, value);
    for (int i = 0; i < COUNT; i++) {
        const int places = i % 2 ? 6 : 9;
        const double v = i % 3 ? value[i] : 1 + 1e-5 * value[i], unit = pow(10, -places);
        char up[64], down[64];
        snprintf(up, sizeof up, "%.*f", places, bcop_rounding_up(v, places));
        snprintf(down, sizeof down, "%.*f", places, bcop_rounding_down(v, places));
        const long double above = strtold(up, NULL) - (long double)v;
        const long double below = (long double)v - strtold(down, NULL);
        /* 1e-15: a decimal's own double may lie on either side of it */
        if (!(above >= -1e-15L && above < unit + 1e-15 && below >= -1e-15L && below < unit + 1e-15))
            fail_msg("%.17g printed as %s and %s", v, down, up);
    }
    free(value);
}

static void decimals_stay(void **state) {
    (void)state;
    assert_true(bcop_rounding_up(1, 9) == 1 && bcop_rounding_down(1, 9) == 1);
    assert_true(bcop_rounding_up(0, 9) == 0 && bcop_rounding_down(0, 6) == 0);
    assert_true(bcop_rounding_up(0.1234565, 6) == 0.123457);
    assert_true(bcop_rounding_down(0.1234569, 6) == 0.123456);
    assert_true(bcop_rounding_up(1e300, 9) == 1e300 && bcop_rounding_down(INFINITY, 6) == INFINITY);
    assert_true(isnan(bcop_rounding_up(NAN, 9)));
}

static void gamma_is_an_upper_bound(void **state) {
    (void)state;
    for (double n = 1; n < 1e9; n *= 7) {
        const long double t = (long double)n * 0x1p-53L;
        assert_true((long double)bcop_rounding_gamma(n, 0x1p-53) >= t / (1 - t));
        assert_true((long double)bcop_rounding_gamma(n, 0x1p-53) <= t / (1 - t) * (1 + 1e-14L));
    }
    assert_true(isinf(bcop_rounding_gamma(0x1p23, 0x1p-24)));
}

/* Numbers whose squares round down or vanish. */
static void norms_are_upper_bounds(void **state) {
    (void)state;
    enum { COUNT = 1000 };
    double *x = oracle_doubles(COUNT);
    for (uint64_t seed = 0; seed < 40; seed++) {
        const double scale = pow(10, (double)seed * 8 - 160);
        oracle_random(seed, COUNT, x);
        long double sum = 0;
        for (int i = 0; i < COUNT; i++) {
            x[i] *= scale;
            sum += (long double)x[i] * (long double)x[i];
        }
        const double norm = bcop_rounding_norm(COUNT, x);
        assert_true((long double)norm >= sqrtl(sum));
        assert_true(scale < 1e-140 || (long double)norm <= sqrtl(sum) * (1 + 1e-9L));
    }
    free(x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(printed_bounds_are_bounds),
        cmocka_unit_test(decimals_stay),
        cmocka_unit_test(gamma_is_an_upper_bound),
        cmocka_unit_test(norms_are_upper_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
