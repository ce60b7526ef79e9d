#include "data/sampler.h"

#include "base/rng.h"

void bcop_sampler_order(uint64_t seed, uint32_t epoch, long count, int32_t *order) {
    bcop_rng rng = bcop_rng_open(seed, BCOP_RNG_ORDER, epoch, 0);
    for (long i = 0; i < count; i++)
        order[i] = (int32_t)i;
    for (long i = count - 1; i > 0; i--) {
        const uint32_t j = bcop_rng_below(&rng, (uint32_t)i + 1);
        const int32_t kept = order[i];
        order[i] = order[j];
        order[j] = kept;
    }
}
