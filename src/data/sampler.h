/* The order in which an epoch visits the examples: a permutation that depends on (seed, epoch)
 * alone (Fisher-Yates from the Philox stream BCOP_RNG_ORDER). Step t of an epoch takes positions
 * t*batch .. (t+1)*batch-1; an epoch has floor(count/batch) steps. */
#ifndef BCOP_DATA_SAMPLER_H
#define BCOP_DATA_SAMPLER_H

#include <stdint.h>

/* Fills order[count] with a permutation of 0 .. count-1; count < 2^31. Local, no allocation. */
void bcop_sampler_order(uint64_t seed, uint32_t epoch, long count, int32_t *order);

#endif
