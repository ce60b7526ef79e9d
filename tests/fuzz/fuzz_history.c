/* libFuzzer target: metrics.jsonl and, after the first zero byte, attempts.jsonl, as bcop status
 * and bcop plot read them. Corpus: corpus/history/. What is told must obey what callers print. */
#include "train/history.h"

#include "fuzz_folder.h"

#include <math.h>

static const char config[] =
    "name: fuzz\n"
    "data: {kind: synthetic, height: 4, width: 4, channels: 1, classes: 2, count: 64}\n"
    "model:\n  - dense: {units: 2}\n"
    "loss: {kind: hinge, eps: 0.5}\n"
    "optimizer: {kind: adam, lr: 0.1}\n"
    "train: {batch: 16, epochs: 3}\n";

static void check(const bcop_history *h) {
    double speed;
    bcop_history_last(h, &speed);
    NEED(bcop_history_state(h)[0] && speed >= 0);
    NEED(bcop_history_left(h) >= -1 && bcop_history_left(h) < 1e12);
    const bcop_history_evaluation *e = bcop_history_evaluated(h, "holdout");
    NEED(!e || (e->eps.count >= 0 && e->eps.count <= BCOP_REALS_MAX));
    for (long i = 0; i < h->attempts; i++)
        NEED(bcop_history_end(h, &h->attempt[i])[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    size_t metrics = 0;
    while (metrics < size && data[metrics] != 0)
        metrics++;
    const size_t attempts = metrics < size ? metrics + 1 : size;
    folder_empty(dir);
    file_put(dir, "config.yaml", config, sizeof config - 1);
    file_put(dir, "metrics.jsonl", data, metrics);
    file_put(dir, "attempts.jsonl", data + attempts, size - attempts);
    bcop_history h;
    NEED(bcop_history_read(&h, dir) == BCOP_OK);
    check(&h);
    bcop_history_free(&h);
    return 0;
}
