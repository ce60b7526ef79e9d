/* libFuzzer: CIFAR-10 records. The input, cut in five, is the training files. */
#include "fuzz_folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    for (size_t f = 0; f < 5; f++) {
        char name[32];
        snprintf(name, sizeof name, "data_batch_%zu.bin", f + 1);
        file_put(dir, name, data + size * f / 5, size * (f + 1) / 5 - size * f / 5);
    }
    const bcop_set_kind *kind = bcop_set_kinds[kind_index("cifar10")];
    bcop_images images;
    if (open_dir("cifar10", dir, false, &images) != BCOP_OK)
        return 0;
    NEED(images.count * 3073 == (long)size);
    for (long i = 0; i < images.count; i++) {
        float x[32 * 32 * 3];
        kind->read(&images, i, x);
        NEED(kind->label(&images, i) < images.classes);
    }
    kind->close(&images);
    return 0;
}
