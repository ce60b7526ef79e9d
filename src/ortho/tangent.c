#include "ortho/tangent.h"

#include "linalg/product.h"

long bcop_tangent_scratch(int cols) {
    return (long)cols * cols;
}

void bcop_tangent_project(int rows, int cols, const float *u, float *g, float *scratch) {
    float *s = scratch;
    bcop_product_tn(cols, cols, rows, 1, u, g, 0, s);
    for (int i = 0; i < cols; i++)
        for (int j = i; j < cols; j++) {
            const float mean = 0.5f * (s[(long)i * cols + j] + s[(long)j * cols + i]);
            s[(long)i * cols + j] = s[(long)j * cols + i] = mean;
        }
    bcop_product_nn(rows, cols, cols, -1, u, s, 1, g);
}
