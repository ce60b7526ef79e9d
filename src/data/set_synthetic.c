/* Made-up images that can be learned: a random prototype per class plus noise.
 *
 * Example i has label i % classes; each value is clamp(prototype + noise * normal, 0, 1) with the
 * prototype uniform in [0.25, 0.75] from stream (seed, SYNTHETIC, 0, class) and the normal from
 * stream (seed, SYNTHETIC, 1, i), for the test images (seed, SYNTHETIC, 2, i). The noise is drawn
 * at each reading, so images take no memory, and so are prototypes unless all of them are small. */
#include "base/rng.h"
#include "data/dataset.h"

#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

typedef struct synthetic_options {
    int classes, height, width, channels;
    long count, test_count, seed;
    double noise;
} synthetic_options;

#define NUMBER(name, kind, low, high, value, text)                                                 \
    {                                                                                              \
        .key = #name, .type = kind, .offset = offsetof(synthetic_options, name), .min = low,       \
        .max = high, .fallback = value, .help = text                                               \
    }
static const bcop_option table[] = {
    NUMBER(classes, BCOP_OPTION_INT, 2, 65536, "10", "number of classes"),
    NUMBER(height, BCOP_OPTION_INT, 1, 1024, "8", "height of an image in pixels"),
    NUMBER(width, BCOP_OPTION_INT, 1, 1024, "8", "width of an image in pixels"),
    NUMBER(channels, BCOP_OPTION_INT, 1, 1024, "3", "values per pixel"),
    NUMBER(count, BCOP_OPTION_LONG, 1, INT32_MAX, "1024", "number of training images"),
    NUMBER(test_count, BCOP_OPTION_LONG, 1, INT32_MAX, "256", "number of test images"),
    NUMBER(seed, BCOP_OPTION_LONG, 0, INT32_MAX, "0", "seed of the images, apart from the run's"),
    NUMBER(noise, BCOP_OPTION_REAL, 0, 10, "0.1", "standard deviation of the noise"),
    {0},
};

typedef struct synthetic_state {
    synthetic_options options;
    uint32_t noise_epoch; /* names the noise streams: 1 training, 2 test */
    double *prototypes;   /* [classes][values], or NULL */
} synthetic_state;

enum { KEPT_MAX = 1 << 20 }; /* values of prototypes that are kept */

static uint64_t fingerprint(const synthetic_options *o, bool test) {
    char text[256];
    const int length = snprintf(text, sizeof text, "synthetic %d %d %d %d %ld %ld %ld %.17g %d",
                                o->classes, o->height, o->width, o->channels, o->count,
                                o->test_count, o->seed, o->noise, test);
    return XXH3_64bits(text, (size_t)length);
}

static double next_mean(bcop_rng *prototype) {
    return 0.25 + 0.5 * bcop_rng_uniform(prototype);
}

static bcop_status keep_prototypes(synthetic_state *s) {
    const synthetic_options *o = &s->options;
    const long size = (long)o->height * o->width * o->channels;
    if (o->classes * size > KEPT_MAX)
        return BCOP_OK;
    s->prototypes = malloc((size_t)(o->classes * size) * sizeof *s->prototypes);
    if (!s->prototypes)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory for the made-up images");
    for (int c = 0; c < o->classes; c++) {
        bcop_rng rng = bcop_rng_open((uint64_t)o->seed, BCOP_RNG_SYNTHETIC, 0, (uint64_t)c);
        for (long i = 0; i < size; i++)
            s->prototypes[c * size + i] = next_mean(&rng);
    }
    return BCOP_OK;
}

static bcop_status open_synthetic(const void *options, bool test, bcop_images *images) {
    synthetic_state *s = calloc(1, sizeof *s);
    if (!s)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory: %zu bytes", sizeof *s);
    const synthetic_options *o = options;
    s->options = *o;
    s->noise_epoch = test ? 2 : 1;
    const bcop_status status = keep_prototypes(s);
    if (status != BCOP_OK) {
        free(s);
        return status;
    }
    *images = (bcop_images){.count = test ? o->test_count : o->count,
                            .shape = {o->height, o->width, o->channels},
                            .classes = o->classes,
                            .fingerprint = fingerprint(o, test),
                            .state = s};
    return BCOP_OK;
}

static int label_synthetic(const bcop_images *images, long index) {
    return (int)(index % images->classes);
}

static void read_synthetic(const bcop_images *images, long index, float *x) {
    const synthetic_state *s = images->state;
    const uint64_t seed = (uint64_t)s->options.seed;
    const int label = label_synthetic(images, index);
    const long size = bcop_shape_size(images->shape);
    const double *kept = s->prototypes ? s->prototypes + label * size : NULL;
    bcop_rng prototype = bcop_rng_open(seed, BCOP_RNG_SYNTHETIC, 0, (uint64_t)label);
    bcop_rng noise = bcop_rng_open(seed, BCOP_RNG_SYNTHETIC, s->noise_epoch, (uint64_t)index);
    for (long i = 0; i < size; i++) {
        double value = kept ? kept[i] : next_mean(&prototype);
        if (s->options.noise > 0)
            value += s->options.noise * bcop_rng_normal(&noise);
        x[i] = (float)(value < 0 ? 0 : value > 1 ? 1 : value);
    }
}

static void close_synthetic(bcop_images *images) {
    synthetic_state *s = images->state;
    free(s->prototypes);
    free(s);
    *images = (bcop_images){0};
}

const bcop_set_kind bcop_set_synthetic = {
    .name = "synthetic",
    .help = "made-up images, a random prototype per class plus noise",
    .options = table,
    .options_size = sizeof(synthetic_options),
    .open = open_synthetic,
    .read = read_synthetic,
    .label = label_synthetic,
    .close = close_synthetic,
};
