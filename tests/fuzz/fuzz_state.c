/* libFuzzer target: bytes as state.h5, without a manifest: its attributes, the configuration in it
 * and a few arrays. The corpus is the state of a net of one dense layer of two outputs. */
#include "fuzz_child.h"
#include "train/checkpoint.h"

static void work(const uint8_t *data, size_t size) {
    file_put(dir, "state.h5", data, size);
    bcop_snapshot snapshot;
    bcop_experiment experiment;
    if (bcop_checkpoint_open(&bcop_comm_alone, dir, &snapshot, &experiment) != BCOP_OK)
        return;
    NEED(snapshot.progress.step >= 0 && snapshot.progress.epoch >= 0);
    NEED(snapshot.classes >= 1 && bcop_shape_size(snapshot.in) >= 1);
    float values[8] = {0};
    bcop_field field[] = {
        {.path = "/layers/00-dense/weight", .dimensions = 2, .size = {2, 4}, .data = values},
        {.path = "/layers/00-dense/bias", .dimensions = 1, .size = {2}, .data = values},
        {.path = "/layers/00-dense/blocks/W", .dimensions = 2, .size = {4, 2}, .data = values}};
    for (int i = 0; i < 3; i++) {
        const bcop_status status = bcop_store_read(snapshot.store, &field[i]);
        NEED(status == BCOP_OK || status == BCOP_BAD_DATA);
    }
    bcop_experiment_free(&experiment);
    bcop_checkpoint_close(&snapshot);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    child_run(work, data, size);
    return 0;
}
