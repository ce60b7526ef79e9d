#include "ortho/tangent.h"

#include "linalg/product.h"

long bcop_tangent_scratch(const bcop_rows *rows) {
    if (rows->grid)
        return 2 * bcop_grid_floats(rows->grid, rows->rows, rows->cols) +
               bcop_grid_floats(rows->grid, rows->cols, rows->cols);
    return (long)rows->cols * rows->cols;
}

int bcop_tangent_sums(const bcop_rows *rows, int depth) {
    return rows->grid || depth > 0 ? 0 : 1;
}

static void project_on_grid(const bcop_rows *rows, const float *u, float *g, float *scratch) {
    const bcop_grid *grid = rows->grid;
    const long size = bcop_grid_floats(grid, rows->rows, rows->cols);
    bcop_grid_matrix wide_u = bcop_grid_place(grid, rows->rows, rows->cols, scratch);
    bcop_grid_matrix wide_g = bcop_grid_place(grid, rows->rows, rows->cols, scratch + size);
    bcop_grid_matrix s = bcop_grid_place(grid, rows->cols, rows->cols, scratch + 2 * size);
    bcop_grid_spread(u, &wide_u);
    bcop_grid_spread(g, &wide_g);
    bcop_grid_inner(&wide_u, &wide_g, &s);
    bcop_grid_multiply(-1, &wide_u, &s, 1, &wide_g);
    bcop_grid_collect(&wide_g, g);
}

double bcop_tangent_flops(const bcop_rows *rows, int depth) {
    const double square = (double)rows->cols * rows->cols;
    return depth > 0 && !rows->grid ? 2 * (rows->count + depth) * square : 4 * rows->count * square;
}

void bcop_tangent_project_image(const bcop_rows *rows, const float *u, int depth,
                                const float *image, const float *right, float *g, float *scratch) {
    bcop_product_inner(depth, rows->cols, image, right, scratch);
    bcop_rows_symmetric(rows, -1, u, scratch, 1, g);
}

void bcop_tangent_project(bcop_rows *rows, const float *u, float *g, float *scratch) {
    if (rows->grid) {
        project_on_grid(rows, u, g, scratch);
        return;
    }
    bcop_rows_inner(rows, u, g, scratch);
    bcop_rows_symmetric(rows, -1, u, scratch, 1, g);
}
