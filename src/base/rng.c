#include "base/rng.h"

#include <math.h>
#include <string.h>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wconversion"
#include <Random123/philox.h>
#pragma GCC diagnostic pop
#include <xxhash.h>

bcop_rng bcop_rng_open(uint64_t seed, bcop_rng_purpose purpose, uint32_t epoch, uint64_t sample) {
    return (bcop_rng){
        .key = {(uint32_t)seed, (uint32_t)(seed >> 32)},
        .counter = {0, (uint32_t)purpose << 24 | (uint32_t)(sample >> 32), epoch, (uint32_t)sample},
    };
}

uint64_t bcop_rng_name(const char *name) {
    return XXH3_64bits(name, strlen(name)) >> 8;
}

uint32_t bcop_rng_bits(bcop_rng *rng) {
    if (rng->left == 0) {
        const philox4x32_key_t key = {{rng->key[0], rng->key[1]}};
        const philox4x32_ctr_t counter = {
            {rng->counter[0], rng->counter[1], rng->counter[2], rng->counter[3]}};
        const philox4x32_ctr_t out = philox4x32(counter, key);
        memcpy(rng->word, out.v, sizeof rng->word);
        rng->counter[0]++;
        rng->left = 4;
    }
    return rng->word[4 - rng->left--];
}

uint32_t bcop_rng_below(bcop_rng *rng, uint32_t bound) {
    uint64_t product = (uint64_t)bcop_rng_bits(rng) * bound;
    if ((uint32_t)product < bound) {
        const uint32_t threshold = -bound % bound;
        while ((uint32_t)product < threshold)
            product = (uint64_t)bcop_rng_bits(rng) * bound;
    }
    return (uint32_t)(product >> 32);
}

double bcop_rng_uniform(bcop_rng *rng) {
    const uint64_t high = bcop_rng_bits(rng), low = bcop_rng_bits(rng);
    return ((double)((high << 32 | low) >> 12) + 0.5) * 0x1p-52;
}

double bcop_rng_normal(bcop_rng *rng) {
    const double radius = sqrt(-2 * log(bcop_rng_uniform(rng)));
    return radius * cos(6.283185307179586477 * bcop_rng_uniform(rng));
}
