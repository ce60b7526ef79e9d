/* libFuzzer target: bytes as a file of labelled images, through the hdf5 kind. */
#include "fuzz_child.h"

static void work(const uint8_t *data, size_t size) {
    char path[512];
    file_put(dir, "images.h5", data, size);
    folder_path(dir, "images.h5", path);
    void *options = kind_options("hdf5");
    kind_set_text("hdf5", options, "train", path);
    kind_set_int("hdf5", options, "classes", 10);
    const bcop_set_kind *kind = bcop_set_kinds[kind_index("hdf5")];
    bcop_images images;
    const bcop_status status = kind->open(options, false, &images);
    free(options);
    NEED(status == BCOP_OK || status == BCOP_BAD_DATA || status == BCOP_INTERNAL);
    if (status != BCOP_OK)
        return;
    float *x = malloc((size_t)bcop_shape_size(images.shape) * sizeof *x);
    NEED(x);
    for (long i = 0; i < images.count; i++) {
        kind->read(&images, i, x);
        NEED(kind->label(&images, i) >= 0 && kind->label(&images, i) < images.classes);
    }
    free(x);
    kind->close(&images);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    child_run(work, data, size);
    return 0;
}
