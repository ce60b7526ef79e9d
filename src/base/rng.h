/* Counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011) from Random123.
 *
 * A stream is named by (seed, purpose, epoch, sample), so what it gives depends on these alone and
 * never on the number of ranks, on the order of calls elsewhere, or on earlier runs. The seed is
 * the 64-bit key; the counter words are (draw, purpose and high bits of the sample, epoch, sample).
 */
#ifndef BCOP_BASE_RNG_H
#define BCOP_BASE_RNG_H

#include <stdint.h>

typedef enum bcop_rng_purpose {
    BCOP_RNG_INIT = 1,    /* initial blocks; sample = hash of the block's name */
    BCOP_RNG_ORDER = 2,   /* the sampler's permutation of an epoch */
    BCOP_RNG_AUGMENT = 3, /* augmentation of one example in one epoch */
    BCOP_RNG_SYNTHETIC = 4,
    BCOP_RNG_TEST = 5,
    BCOP_RNG_ATTACK = 6 /* where an attack on one image begins; epoch = restart */
} bcop_rng_purpose;

typedef struct bcop_rng {
    uint32_t key[2];
    uint32_t counter[4];
    uint32_t word[4]; /* the current block's output */
    int left;         /* words of it not yet given out */
} bcop_rng;

/* Opens the stream (seed, purpose, epoch, sample); sample < 2^56. Local. */
bcop_rng bcop_rng_open(uint64_t seed, bcop_rng_purpose purpose, uint32_t epoch, uint64_t sample);

/* A 56-bit sample number for a name (XXH3). Local. */
uint64_t bcop_rng_name(const char *name);

/* The next 32 uniform bits. Local. */
uint32_t bcop_rng_bits(bcop_rng *rng);

/* Uniform in 0 .. bound-1 without bias (Lemire 2019); bound >= 1. Local. */
uint32_t bcop_rng_below(bcop_rng *rng, uint32_t bound);

/* Uniform in the open interval (0, 1), a multiple of 2^-52 plus 2^-53. Local. */
double bcop_rng_uniform(bcop_rng *rng);

/* Standard normal (Box-Muller, the cosine branch). Local. */
double bcop_rng_normal(bcop_rng *rng);

#endif
