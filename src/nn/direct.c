#include "nn/direct.h"

#include <stdbool.h>
#include <string.h>

/* Vectors of the compiler's, as wide as the CPU's registers; a tile of TALL x 2 of them, one row of
   the kernel and a factor fit in its 32 (AVX-512) or 16 registers. This file is compiled with
   contraction: a += b * c is one fused multiply-add. */
#if defined(__AVX512F__)
enum { LANES = 16, TALL = 12 };
#define EACH_TALL(X, wide)                                                                         \
    X(1, wide)                                                                                     \
    X(2, wide)                                                                                     \
    X(3, wide)                                                                                     \
    X(4, wide)                                                                                     \
    X(5, wide) X(6, wide) X(7, wide) X(8, wide) X(9, wide) X(10, wide) X(11, wide) X(12, wide)
#else
#if defined(__AVX__)
enum { LANES = 8, TALL = 6 };
#else
enum { LANES = 4, TALL = 6 };
#endif
#define EACH_TALL(X, wide) X(1, wide) X(2, wide) X(3, wide) X(4, wide) X(5, wide) X(6, wide)
#endif

enum {
    WIDE = 2,             /* vectors of outputs in a tile */
    BLOCK = WIDE * LANES, /* outputs of a block */
    CHUNK = 128           /* windows summed in one chain, by slope */
};

typedef float vector
    __attribute__((vector_size(4 * LANES), aligned(4), may_alias)); /* anywhere in floats */

/* The loops over a tile must go, or its sums would live in memory. */
#if defined(__clang__)
#define UNROLLED _Pragma("clang loop unroll(full)")
#else
#define UNROLLED _Pragma("GCC unroll 12")
#endif
#define INLINE static inline __attribute__((always_inline))

static int least(int a, int b) {
    return a < b ? a : b;
}

/* ---- the packed kernel ----
   Blocks of outputs one after the other, each [lines run][its vectors][LANES], zeros behind the
   last output. */

static int block_vectors(const bcop_direct *d, int first) {
    return d->outputs - first > LANES ? WIDE : 1;
}

bcop_direct bcop_direct_rows(long rows, int run, int outputs) {
    return (bcop_direct){.height = 1,
                         .width = (int)rows,
                         .lines = 1,
                         .run = run,
                         .across = run,
                         .outputs = outputs,
                         .out_across = outputs};
}

long bcop_direct_packed(const bcop_direct *d) {
    return (long)d->lines * d->run * ((d->outputs + LANES - 1) / LANES * LANES);
}

void bcop_direct_pack(const bcop_direct *d, long row, const float *outputs, float *packed) {
    const long depth = (long)d->lines * d->run;
    for (int first = 0; first < d->outputs; first += BLOCK) {
        const int length = block_vectors(d, first) * LANES;
        float *to = packed + row * length;
        const int valid = least(length, d->outputs - first);
        memcpy(to, outputs + first, (size_t)valid * sizeof *to);
        memset(to + valid, 0, (size_t)(length - valid) * sizeof *to);
        packed += depth * length;
    }
}

/* ---- correlate ---- */

/* Windows in a row, one block of outputs. */
typedef struct tile {
    const bcop_direct *d;
    const float *x, *kernel;
    const float *bias; /* [BLOCK] */
    const float *add;  /* laid out as y, or NULL */
    float *y;
    int valid; /* outputs of the block that there are */
} tile;

/* The numbers of `tall` windows, of which only the valid ones are written. */
INLINE void write_tile(const int tall, const int wide, const tile *t,
                       vector sum[restrict TALL][WIDE]) {
    float *y = t->y;
    if (t->valid == wide * LANES) {
        UNROLLED
        for (int p = 0; p < tall; p++) {
            UNROLLED
            for (int v = 0; v < wide; v++)
                *(vector *)(y + p * t->d->out_across + v * LANES) = sum[p][v];
        }
        return;
    }
    float row[BLOCK];
    UNROLLED
    for (int p = 0; p < tall; p++) {
        UNROLLED
        for (int v = 0; v < wide; v++)
            *(vector *)(row + v * LANES) = sum[p][v];
        memcpy(y + p * t->d->out_across, row, (size_t)t->valid * sizeof *row);
    }
}

/* What the sums of `tall` windows begin with. */
INLINE void begin_tile(const int tall, const int wide, const tile *t,
                       vector sum[restrict TALL][WIDE]) {
    UNROLLED
    for (int p = 0; p < tall; p++) {
        UNROLLED
        for (int v = 0; v < wide; v++)
            sum[p][v] = *(const vector *)(t->bias + v * LANES);
    }
    if (!t->add)
        return;
    UNROLLED
    for (int p = 0; p < tall; p++) {
        const float *add = t->add + p * t->d->out_across;
        float row[BLOCK] = {0};
        if (t->valid < wide * LANES)
            add = memcpy(row, add, (size_t)t->valid * sizeof *row);
        UNROLLED
        for (int v = 0; v < wide; v++)
            sum[p][v] += *(const vector *)(add + v * LANES);
    }
}

INLINE void correlate_tile(const int tall, const int wide, const tile *t) {
    const bcop_direct *d = t->d;
    const long across = d->across, line = d->line;
    const int run = d->run, lines = d->lines;
    const float *x = t->x, *kernel = t->kernel;
    vector sum[TALL][WIDE];
    begin_tile(tall, wide, t, sum);
    for (int l = 0; l < lines; l++, x += line) {
        const float *at = x;
        for (int i = 0; i < run; i++, at++, kernel += wide * LANES) {
            vector k[WIDE];
            UNROLLED
            for (int v = 0; v < wide; v++)
                k[v] = *(const vector *)(kernel + v * LANES);
            UNROLLED
            for (int p = 0; p < tall; p++) {
                const float value = at[p * across];
                UNROLLED
                for (int v = 0; v < wide; v++)
                    sum[p][v] += value * k[v];
            }
        }
    }
    write_tile(tall, wide, t, sum);
}

#define CASE(tall, wide)                                                                           \
    case tall:                                                                                     \
        correlate_tile(tall, wide, t);                                                             \
        break;

static void correlate_narrow(int tall, const tile *t) {
    switch (tall) { EACH_TALL(CASE, 1) }
}

static void correlate_wide(int tall, const tile *t) {
    switch (tall) { EACH_TALL(CASE, 2) }
}
#undef CASE

/* Of `left` things in pieces of at most TALL, as equal as can be, the next piece. */
static int piece(int left) {
    const int pieces = (left + TALL - 1) / TALL;
    return (left + pieces - 1) / pieces;
}

/* ---- memory ---- */

/* Memory that is wanted next, brought to the second cache while something else is computed: it is
   first seen in steps too long for the CPU to guess. */
typedef struct stream {
    const char *at, *end;
    long share; /* lines of cache at a time */
} stream;

enum { LINE = 64 };

static stream open_stream(const float *from, long floats, long times) {
    const long bytes = floats * (long)sizeof *from;
    return (stream){(const char *)from, (const char *)from + bytes,
                    (bytes + LINE * times - 1) / (LINE * times)};
}

static void fetch(stream *s) {
    for (long i = 0; i < s->share && s->at < s->end; i++, s->at += LINE)
        __builtin_prefetch(s->at, 0, 2);
}

/* ---- correlate, all of it ---- */

void bcop_direct_correlate(const bcop_direct *d, const float *x, const float *packed,
                           const float *bias, const float *add, float *y) {
    const long pieces = (d->width + TALL - 1) / TALL * (long)d->height;
    stream ahead =
        open_stream(d->ahead, d->ahead_length, pieces * ((d->outputs + BLOCK - 1) / BLOCK) + 1);
    for (int first = 0; first < d->outputs; first += BLOCK) {
        const int wide = block_vectors(d, first);
        float start[BLOCK] = {0};
        tile t = {.d = d,
                  .kernel = packed,
                  .bias = start,
                  .valid = least(wide * LANES, d->outputs - first)};
        if (bias)
            memcpy(start, bias + first, (size_t)t.valid * sizeof *bias);
        for (int row = 0; row < d->height; row++) {
            int tall;
            for (int column = 0; column < d->width; column += tall) {
                tall = piece(d->width - column);
                t.x = x + row * d->down + column * d->across;
                const long at = row * d->out_down + column * d->out_across + first;
                t.add = add ? add + at : NULL;
                t.y = y + at;
                fetch(&ahead);
                if (wide == 1)
                    correlate_narrow(tall, &t);
                else
                    correlate_wide(tall, &t);
            }
        }
        packed += (long)d->lines * d->run * wide * LANES;
    }
}

/* ---- slope ---- */

/* At most CHUNK windows: some columns of some rows of some images. */
typedef struct chunk {
    int images, rows, columns;
    const float *x, *gy;
    long x_image, x_down, x_across, gy_image, gy_down, gy_across;
    bool overwrite; /* what the sums are added to is not there yet */
} chunk;

/* g[tall][wide vectors] += (or =) sum over the chunk's windows of x[i] gy[o]; x and gy are the
   first window's. */
INLINE void slope_tile(const int tall, const int wide, const chunk *c, const float *x,
                       const float *gy, long stride, int valid, float *g) {
    const long x_across = c->x_across, gy_across = c->gy_across;
    const int columns = c->columns;
    vector sum[TALL][WIDE];
    UNROLLED
    for (int p = 0; p < tall; p++) {
        UNROLLED
        for (int v = 0; v < wide; v++)
            sum[p][v] = (vector){0};
    }
    for (int image = 0; image < c->images; image++)
        for (int row = 0; row < c->rows; row++) {
            const float *xs = x + image * c->x_image + row * c->x_down;
            const float *gys = gy + image * c->gy_image + row * c->gy_down;
            for (int column = 0; column < columns; column++, xs += x_across, gys += gy_across) {
                vector k[WIDE];
                UNROLLED
                for (int v = 0; v < wide; v++)
                    k[v] = *(const vector *)(gys + v * LANES);
                UNROLLED
                for (int p = 0; p < tall; p++) {
                    const float value = xs[p];
                    UNROLLED
                    for (int v = 0; v < wide; v++)
                        sum[p][v] += value * k[v];
                }
            }
        }
    if (valid == wide * LANES) {
        UNROLLED
        for (int p = 0; p < tall; p++) {
            UNROLLED
            for (int v = 0; v < wide; v++) {
                vector *to = (vector *)(g + p * stride + v * LANES);
                if (c->overwrite)
                    *to = sum[p][v];
                else
                    *to += sum[p][v];
            }
        }
        return;
    }
    UNROLLED
    for (int p = 0; p < tall; p++) {
        float part[BLOCK] = {0};
        UNROLLED
        for (int v = 0; v < wide; v++)
            *(vector *)(part + v * LANES) = sum[p][v];
        for (int o = 0; o < valid; o++)
            g[p * stride + o] = c->overwrite ? part[o] : g[p * stride + o] + part[o];
    }
}

#define CASE(tall, wide)                                                                           \
    case tall:                                                                                     \
        slope_tile(tall, wide, c, x, gy, stride, valid, g);                                        \
        break;

static void slope_narrow(int tall, const chunk *c, const float *x, const float *gy, long stride,
                         int valid, float *g) {
    switch (tall) { EACH_TALL(CASE, 1) }
}

static void slope_wide(int tall, const chunk *c, const float *x, const float *gy, long stride,
                       int valid, float *g) {
    switch (tall) { EACH_TALL(CASE, 2) }
}
#undef CASE

/* The outputs of a block that is not full, for the windows of a chunk, with zeros behind them: the
   vectors of the last window would reach beyond its memory. */
static void widen(chunk *c, int valid, int length, float *to) {
    const float *from = c->gy;
    c->gy = to;
    for (int image = 0; image < c->images; image++)
        for (int row = 0; row < c->rows; row++)
            for (int column = 0; column < c->columns; column++, to += length) {
                memset(to, 0, (size_t)length * sizeof *to);
                memcpy(to, from + image * c->gy_image + row * c->gy_down + column * c->gy_across,
                       (size_t)valid * sizeof *to);
            }
    c->gy_across = length;
    c->gy_down = (long)c->columns * length;
    c->gy_image = c->rows * c->gy_down;
}

/* sum[valid] += sum over the chunk's windows of gy. Four chains: one would wait for itself. */
INLINE void add_outputs(const int wide, const chunk *c, int valid, float *sum) {
    enum { CHAINS = 4 };
    vector chain[CHAINS][WIDE] = {0};
    for (int image = 0; image < c->images; image++)
        for (int row = 0; row < c->rows; row++) {
            const float *gy = c->gy + image * c->gy_image + row * c->gy_down;
            for (int column = 0; column < c->columns; column += CHAINS) {
                const int left = least(c->columns - column, CHAINS);
                UNROLLED
                for (int i = 0; i < CHAINS; i++)
                    if (i < left) {
                        UNROLLED
                        for (int v = 0; v < wide; v++)
                            chain[i][v] +=
                                *(const vector *)(gy + (column + i) * c->gy_across + v * LANES);
                    }
            }
        }
    float part[BLOCK] = {0};
    UNROLLED
    for (int v = 0; v < wide; v++)
        *(vector *)(part + v * LANES) = (chain[0][v] + chain[1][v]) + (chain[2][v] + chain[3][v]);
    for (int o = 0; o < valid; o++)
        sum[o] += part[o];
}

/* Calls of slope_tile for one chunk; at least 1. */
static long chunk_tiles(const bcop_direct *d) {
    const long tiles =
        (d->outputs + BLOCK - 1) / BLOCK * (long)d->lines * ((d->run + TALL - 1) / TALL);
    return tiles > 0 ? tiles : 1;
}

/* Adds one chunk to g and sum. */
static void add_chunk(const bcop_direct *d, const chunk *whole, stream next[2], float *g,
                      float *sum) {
    float widened[CHUNK * BLOCK];
    for (int first = 0; first < d->outputs; first += BLOCK) {
        const int wide = block_vectors(d, first);
        const int valid = least(wide * LANES, d->outputs - first);
        chunk c = *whole;
        c.gy += first;
        if (valid < wide * LANES)
            widen(&c, valid, wide * LANES, widened);
        if (sum && wide == 1)
            add_outputs(1, &c, valid, sum + first);
        else if (sum)
            add_outputs(2, &c, valid, sum + first);
        float *to = g + first;
        for (int l = 0; l < d->lines; l++) {
            int tall;
            for (int i = 0; i < d->run; i += tall, to += (long)tall * d->outputs) {
                tall = piece(d->run - i);
                fetch(&next[0]);
                fetch(&next[1]);
                const float *x = c.x + l * d->line + i;
                if (wide == 1)
                    slope_narrow(tall, &c, x, c.gy, d->outputs, valid, to);
                else
                    slope_wide(tall, &c, x, c.gy, d->outputs, valid, to);
            }
        }
    }
}

/* Chunk `number` of all, in whole images or whole rows where they are small enough; false: there
   are fewer. */
static bool cut_chunk(const bcop_direct *d, int n, long number, const float *x, const float *gy,
                      chunk *c) {
    const int columns = least(d->width, CHUNK), rows = least(d->height, CHUNK / columns);
    const int images = rows == d->height && columns == d->width ? CHUNK / (rows * columns) : 1;
    const long wide = (d->width + columns - 1) / columns, high = (d->height + rows - 1) / rows;
    const int column = (int)(number % wide) * columns, row = (int)(number / wide % high) * rows;
    const long image = number / wide / high * images;
    if (image >= n)
        return false;
    c->images = least(images, n - (int)image);
    c->rows = least(rows, d->height - row);
    c->columns = least(columns, d->width - column);
    c->x = x + image * c->x_image + row * d->down + column * d->across;
    c->gy = gy + image * c->gy_image + row * d->out_down + column * d->out_across;
    return true;
}

static void add_slope(const bcop_direct *d, int n, const float *x, long x_image, const float *gy,
                      long gy_image, bool overwrite, float *g, float *sum) {
    const long tiles = chunk_tiles(d);
    chunk c, after = {.x_image = x_image,
                      .x_down = d->down,
                      .x_across = d->across,
                      .gy_image = gy_image,
                      .gy_down = d->out_down,
                      .gy_across = d->out_across};
    bool more = cut_chunk(d, n, 0, x, gy, &after);
    for (long number = 1; more; number++) {
        c = after;
        c.overwrite = overwrite && number == 1;
        more = cut_chunk(d, n, number, x, gy, &after);
        stream next[2] = {{0}};
        if (!more)
            next[0] = open_stream(d->ahead, d->ahead_length, tiles);
        else {
            next[0] =
                open_stream(after.x, (after.images - 1) * x_image + after.rows * d->down, tiles);
            next[1] = open_stream(after.gy,
                                  (after.images - 1) * gy_image + after.rows * d->out_down, tiles);
        }
        add_chunk(d, &c, next, g, sum);
    }
}

void bcop_direct_slope(const bcop_direct *d, int n, const float *x, long x_image, const float *gy,
                       long gy_image, float *g, float *sum) {
    if (sum)
        memset(sum, 0, (size_t)d->outputs * sizeof *sum);
    add_slope(d, n, x, x_image, gy, gy_image, true, g, sum);
}

void bcop_direct_slope_add(const bcop_direct *d, int n, const float *x, long x_image,
                           const float *gy, long gy_image, float *g, float *sum) {
    add_slope(d, n, x, x_image, gy, gy_image, false, g, sum);
}

/* ---- the peak ---- */

double bcop_direct_peak(long rounds, float *sink) {
    vector sum[TALL][WIDE];
    const float factor = *sink;
    UNROLLED
    for (int p = 0; p < TALL; p++) {
        UNROLLED
        for (int v = 0; v < WIDE; v++)
            sum[p][v] = (vector){0} + (float)(p * WIDE + v); /* all different, or one is enough */
    }
    for (long r = 0; r < rounds; r++) {
        UNROLLED
        for (int p = 0; p < TALL; p++) {
            UNROLLED
            for (int v = 0; v < WIDE; v++)
                sum[p][v] += sum[p][v] * factor;
        }
    }
    for (int p = 0; p < TALL; p++)
        for (int v = 0; v < WIDE; v++)
            for (int l = 0; l < LANES; l++)
                *sink += sum[p][v][l];
    return 2.0 * TALL * WIDE * LANES * (double)rounds;
}
