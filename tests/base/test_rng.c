/* run: serial */
#include "base/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

/* Philox4x32-10 as in section 3.3 of Salmon et al., SC 2011, written from the paper. */
static void philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]) {
    uint32_t c[4], k[2] = {key[0], key[1]};
    memcpy(c, counter, sizeof c);
    for (int round = 0; round < 10; round++) {
        const uint64_t p0 = (uint64_t)0xD2511F53u * c[0], p1 = (uint64_t)0xCD9E8D57u * c[2];
        const uint32_t next[4] = {(uint32_t)(p1 >> 32) ^ c[1] ^ k[0], (uint32_t)p1,
                                  (uint32_t)(p0 >> 32) ^ c[3] ^ k[1], (uint32_t)p0};
        memcpy(c, next, sizeof c);
        k[0] += 0x9E3779B9u;
        k[1] += 0xBB67AE85u;
    }
    memcpy(out, c, sizeof c);
}

/* The three lines "philox4x32 10" of Random123's kat_vectors. */
static void published_vectors(void **state) {
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], expected[4];
    } kat[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (int i = 0; i < COUNT(kat); i++) {
        const uint32_t *c = kat[i].counter;
        bcop_rng rng = bcop_rng_open((uint64_t)kat[i].key[1] << 32 | kat[i].key[0],
                                     (bcop_rng_purpose)(c[1] >> 24), c[2],
                                     (uint64_t)(c[1] & 0xffffff) << 32 | c[3]);
        rng.counter[0] = c[0]; /* a stream starts at draw 0 */
        for (int w = 0; w < 4; w++)
            assert_int_equal(bcop_rng_bits(&rng), kat[i].expected[w]);
    }
}

static void streams_follow_their_layout(void **state) {
    (void)state;
    const uint64_t seed = 0x0123456789abcdef, sample = 0xfedcba98765432;
    bcop_rng rng = bcop_rng_open(seed, BCOP_RNG_AUGMENT, 77, sample);
    for (uint32_t block = 0; block < 1000; block++) {
        const uint32_t counter[4] = {block, 3u << 24 | 0xfedcba, 77, 0x98765432};
        const uint32_t key[2] = {0x89abcdef, 0x01234567};
        uint32_t expected[4];
        philox(counter, key, expected);
        for (int w = 0; w < 4; w++)
            assert_int_equal(bcop_rng_bits(&rng), expected[w]);
    }
}

static void every_part_of_the_name_matters(void **state) {
    (void)state;
    const bcop_rng streams[] = {
        bcop_rng_open(1, BCOP_RNG_INIT, 2, 3),
        bcop_rng_open(2, BCOP_RNG_INIT, 2, 3),
        bcop_rng_open(1 + (1ull << 32), BCOP_RNG_INIT, 2, 3),
        bcop_rng_open(1, BCOP_RNG_ORDER, 2, 3),
        bcop_rng_open(1, BCOP_RNG_INIT, 3, 3),
        bcop_rng_open(1, BCOP_RNG_INIT, 2, 4),
        bcop_rng_open(1, BCOP_RNG_INIT, 2, 3 + (1ull << 32)),
        bcop_rng_open(1, BCOP_RNG_INIT, 2, 3 + (1ull << 55)),
    };
    for (int i = 0; i < COUNT(streams); i++)
        for (int j = 0; j < i; j++) {
            bcop_rng a = streams[i], b = streams[j];
            int equal = 0;
            for (int n = 0; n < 1000; n++)
                equal += bcop_rng_bits(&a) == bcop_rng_bits(&b);
            assert_true(equal <= 1); /* by chance: 1000 / 2^32 */
        }
}

/* The first 56 bits of XXH3's published values for "", "a" and "abc". */
static void names_are_hashed(void **state) {
    (void)state;
    assert_true(bcop_rng_name("") == 0x2d06800538d394);
    assert_true(bcop_rng_name("a") == 0xe6c632b61e964e);
    assert_true(bcop_rng_name("abc") == 0x78af5f94892f39);
}

/* Words put in by hand: of the two, the first is refused exactly when the low half of its product
 * is under 2^32 mod bound, and what is taken gives the high half. */
static void below_refuses_what_would_bias(void **state) {
    (void)state;
    static const uint32_t words[] = {
        0, 1, 2, 3, 4, 5, 0x55555555, 0x55555556, 0x80000000, 0xaaaaaaab, 0xfffffffe, 0xffffffff};
    static const uint32_t bounds[] = {1,        2,         3, 10, 50000, 1u << 31, (1u << 31) + 1,
                                      3u << 30, 0xffffffff};
    int refused = 0;
    for (int b = 0; b < COUNT(bounds); b++)
        for (int w = 0; w < COUNT(words); w++) {
            const uint64_t bound = bounds[b], product = words[w] * bound;
            const bool take = product % (1ull << 32) >= (1ull << 32) % bound;
            /* A word whose product's low half is the largest possible is never refused. */
            const uint32_t spare = 0xffffffff;
            bcop_rng rng = bcop_rng_open(0, BCOP_RNG_TEST, 0, 0);
            rng.left = 2;
            rng.word[2] = words[w];
            rng.word[3] = spare;
            const uint64_t expected = (take ? product : spare * bound) / (1ull << 32);
            assert_true((spare * bound) % (1ull << 32) >= (1ull << 32) % bound);
            assert_int_equal(bcop_rng_below(&rng, bounds[b]), expected);
            assert_int_equal(rng.left, take ? 1 : 0);
            refused += !take;
        }
    assert_true(refused > 0);
}

/* Pearson's statistic of `n` counts against equal chances. */
static double chi_square(const long count[], int n) {
    double total = 0, sum = 0;
    for (int i = 0; i < n; i++)
        total += (double)count[i];
    for (int i = 0; i < n; i++) {
        const double d = (double)count[i] - total / n;
        sum += d * d / (total / n);
    }
    return sum;
}

static void below_is_even(void **state) {
    (void)state;
    enum { DRAWS = 300000 };
    long count[100] = {0}, third[3] = {0};
    bcop_rng rng = bcop_rng_open(5, BCOP_RNG_TEST, 0, 0);
    for (int i = 0; i < DRAWS; i++)
        count[bcop_rng_below(&rng, 100)]++;
    /* 99 degrees of freedom: mean 99, deviation sqrt(198) = 14; one in a million exceeds 181. */
    assert_true(chi_square(count, 100) < 181);
    assert_true(chi_square(count, 100) > 45);
    /* Multiply-and-shift without refusal would make one residue twice as likely as the others. */
    for (int i = 0; i < DRAWS; i++) {
        const uint32_t v = bcop_rng_below(&rng, 3u << 30);
        assert_true(v < 3u << 30);
        third[v % 3]++;
    }
    assert_true(chi_square(third, 3) < 28); /* 2 degrees of freedom: exp(-14) */
    assert_int_equal(bcop_rng_below(&rng, 1), 0);
}

static void uniform_has_its_grid_and_moments(void **state) {
    (void)state;
    /* The ends of the open interval, and the word order, by hand. */
    bcop_rng rng = bcop_rng_open(0, BCOP_RNG_TEST, 0, 0);
    rng.left = 4;
    rng.word[0] = rng.word[1] = 0;
    rng.word[2] = rng.word[3] = 0xffffffff;
    const double first = bcop_rng_uniform(&rng);
    assert_true(first > 0 && first <= 0x1p-53);
    const double last = bcop_rng_uniform(&rng);
    assert_true(last < 1 && last >= 1 - 0x1p-52);
    rng.left = 2;
    rng.word[2] = 0x80000000;
    rng.word[3] = 0;
    assert_true(fabs(bcop_rng_uniform(&rng) - 0.5) <= 0x1p-53);

    enum { DRAWS = 1000000, CELLS = 256 };
    long cell[CELLS] = {0};
    double sum = 0, squares = 0, lagged = 0, before = 0.5;
    rng = bcop_rng_open(7, BCOP_RNG_TEST, 0, 0);
    for (int i = 0; i < DRAWS; i++) {
        const double u = bcop_rng_uniform(&rng);
        assert_true(u > 0 && u < 1);
        cell[(int)(u * CELLS)]++;
        sum += u - 0.5;
        squares += (u - 0.5) * (u - 0.5);
        lagged += (u - 0.5) * (before - 0.5);
        before = u;
    }
    /* Five deviations: sqrt(1/12), sqrt(1/180) and 1/12 over sqrt(DRAWS). */
    assert_true(fabs(sum / DRAWS) < 5 * sqrt(1.0 / 12) / 1000);
    assert_true(fabs(squares / DRAWS - 1.0 / 12) < 5 * sqrt(1.0 / 180) / 1000);
    assert_true(fabs(lagged / DRAWS) < 5.0 / 12 / 1000);
    /* 255 degrees of freedom: deviation sqrt(510) = 22.6. */
    assert_true(fabs(chi_square(cell, CELLS) - 255) < 5.5 * 22.6);
}

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void normal_is_normal(void **state) {
    (void)state;
    /* Box-Muller by hand: u1 = exp(-2) gives radius 2, u2 = 1/2 gives cosine -1. */
    const double u1 = exp(-2.0);
    const uint64_t bits = (uint64_t)(u1 * 0x1p64);
    bcop_rng rng = bcop_rng_open(0, BCOP_RNG_TEST, 0, 0);
    rng.left = 4;
    rng.word[0] = (uint32_t)(bits >> 32);
    rng.word[1] = (uint32_t)bits;
    rng.word[2] = 0x80000000;
    rng.word[3] = 0;
    assert_true(fabs(bcop_rng_normal(&rng) + 2) < 1e-12);

    enum { DRAWS = 200000 };
    double *x = malloc(DRAWS * sizeof *x), moment[5] = {0}, gap = 0;
    assert_non_null(x);
    rng = bcop_rng_open(11, BCOP_RNG_TEST, 0, 0);
    for (int i = 0; i < DRAWS; i++) {
        x[i] = bcop_rng_normal(&rng);
        for (int p = 1; p <= 4; p++)
            moment[p] += pow(x[i], p) / DRAWS;
    }
    /* Moments 0, 1, 0, 3 with variances 1, 2, 15, 96; five deviations. */
    const double root = sqrt(DRAWS);
    assert_true(fabs(moment[1]) < 5 / root);
    assert_true(fabs(moment[2] - 1) < 5 * sqrt(2) / root);
    assert_true(fabs(moment[3]) < 5 * sqrt(15) / root);
    assert_true(fabs(moment[4] - 3) < 5 * sqrt(96) / root);
    /* Kolmogorov-Smirnov: P(gap sqrt(n) > 2.7) is about 2 exp(-2 2.7^2) = 1e-6. */
    qsort(x, DRAWS, sizeof *x, ascending);
    for (int i = 0; i < DRAWS; i++) {
        const double cdf = 0.5 * erfc(-x[i] / sqrt(2));
        gap = fmax(gap, fmax((i + 1.0) / DRAWS - cdf, cdf - (double)i / DRAWS));
    }
    assert_true(gap * root < 2.7);
    free(x);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(published_vectors),
        cmocka_unit_test(streams_follow_their_layout),
        cmocka_unit_test(every_part_of_the_name_matters),
        cmocka_unit_test(names_are_hashed),
        cmocka_unit_test(below_refuses_what_would_bias),
        cmocka_unit_test(below_is_even),
        cmocka_unit_test(uniform_has_its_grid_and_moments),
        cmocka_unit_test(normal_is_normal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
