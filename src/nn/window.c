#include "nn/window.h"

#include <string.h>

static int padded_height(const bcop_window *w) {
    return w->height + w->k - w->stride;
}

static int padded_width(const bcop_window *w) {
    return w->width + w->k - w->stride;
}

long bcop_window_padded(const bcop_window *w) {
    return (long)padded_height(w) * padded_width(w) * w->channels;
}

/* The pixels left and right of a line whose middle is there; for maps smaller than the padding too.
 */
static void pad_line(const bcop_window *w, float *line) {
    const size_t pixel = (size_t)w->channels * sizeof(float);
    for (int x = 0; x < padded_width(w); x++) {
        if (x == w->before)
            x += w->width;
        if (x == padded_width(w))
            break;
        const int from = ((x - w->before) % w->width + w->width) % w->width + w->before;
        if (w->zero)
            memset(line + (long)x * w->channels, 0, pixel);
        else
            memcpy(line + (long)x * w->channels, line + (long)from * w->channels, pixel);
    }
}

void bcop_window_pad(const bcop_window *w, const float *x, float *padded) {
    const long row = (long)padded_width(w) * w->channels, middle = (long)w->width * w->channels;
    for (int y = 0; y < w->height; y++) {
        float *line = padded + (y + w->before) * row;
        memcpy(line + (long)w->before * w->channels, x + y * middle,
               (size_t)middle * sizeof(float));
        pad_line(w, line);
    }
    for (int y = 0; y < padded_height(w); y++) {
        if (y == w->before)
            y += w->height;
        if (y == padded_height(w))
            break;
        const int from = ((y - w->before) % w->height + w->height) % w->height + w->before;
        if (w->zero)
            memset(padded + y * row, 0, (size_t)row * sizeof(float));
        else
            memcpy(padded + y * row, padded + from * row, (size_t)row * sizeof(float));
    }
}

bcop_direct bcop_window_direct(const bcop_window *w, int outputs) {
    const int s = w->stride;
    const long line = (long)padded_width(w) * w->channels;
    return (bcop_direct){.height = w->height / s,
                         .width = w->width / s,
                         .lines = w->k,
                         .run = w->k * w->channels,
                         .line = line,
                         .down = s * line,
                         .across = (long)s * w->channels,
                         .outputs = outputs,
                         .out_down = (long)(w->width / s) * outputs,
                         .out_across = outputs};
}
