/* libFuzzer: IDX images and labels through the mnist kind.
 *
 * Byte 0: bit 0, the images are a gzip file; bit 1, they are packed here; byte 1: number of bytes
 * at the end that are the label file; the rest is the image file. */
#include "fuzz_folder.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2)
        return 0;
    const size_t label_bytes = data[1] < size - 2 ? data[1] : size - 2;
    const size_t image_bytes = size - 2 - label_bytes;
    folder_empty(dir);
    if (data[0] & 2)
        file_put_gz(dir, "t10k-images-idx3-ubyte.gz", data + 2, image_bytes);
    else
        file_put(dir, data[0] & 1 ? "t10k-images-idx3-ubyte.gz" : "t10k-images-idx3-ubyte",
                 data + 2, image_bytes);
    file_put(dir, "t10k-labels-idx1-ubyte", data + 2 + image_bytes, label_bytes);
    const bcop_set_kind *kind = bcop_set_kinds[kind_index("mnist")];
    bcop_images images;
    if (open_dir("mnist", dir, true, &images) != BCOP_OK)
        return 0;
    float *x = malloc((size_t)bcop_shape_size(images.shape) * sizeof(float));
    NEED(x);
    for (long i = 0; i < images.count; i++) {
        kind->read(&images, i, x);
        NEED(kind->label(&images, i) < images.classes);
    }
    free(x);
    kind->close(&images);
    return 0;
}
