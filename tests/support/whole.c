#include "whole.h"

#include "ortho/polar.h"
#include "ortho/tangent.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

void whole_open_part(whole *w, const bcop_comm *group, int rows, int cols) {
    w->arena = (bcop_arena){.name = "rows"};
    bcop_rows_plan(&w->rows, group, group->size - 1, rows, cols, &w->arena);
    bcop_arena_floats(&w->arena, bcop_rows_buffer(&w->rows));
    assert_int_equal(bcop_arena_reserve(&w->arena), BCOP_OK);
    bcop_rows_plan(&w->rows, group, group->size - 1, rows, cols, &w->arena);
    bcop_rows_attach(&w->rows, bcop_arena_floats(&w->arena, bcop_rows_buffer(&w->rows)));
}

void whole_open(whole *w, int rows, int cols) {
    whole_open_part(w, &bcop_comm_alone, rows, cols);
    assert_int_equal(w->rows.first, 0);
    assert_int_equal(w->rows.count, rows);
}

void whole_close(whole *w) {
    bcop_arena_free(&w->arena);
}

long whole_bjorck_scratch(int rows, int cols) {
    whole w;
    whole_open(&w, rows, cols);
    const long size = bcop_bjorck_scratch(&w.rows);
    whole_close(&w);
    return size;
}

bcop_status whole_retract(bcop_bjorck_rule rule, const char *name, int rows, int cols, float *w,
                          float *scratch, int *iterations) {
    whole block;
    whole_open(&block, rows, cols);
    const bcop_status status = bcop_bjorck_retract(rule, name, &block.rows, w, scratch, iterations);
    whole_close(&block);
    return status;
}

void whole_polar(int iterations, int rows, int cols, float *m, float *scratch) {
    whole w;
    whole_open(&w, rows, cols);
    const long size = (long)rows * cols;
    float *given = malloc((size_t)(size + 1) * sizeof *given);
    assert_non_null(given);
    for (long i = 0; i < size; i++) {
        given[i] = m[i];
        m[i] = 0;
    }
    bcop_polar_add(iterations, &w.rows, 1, given, m, scratch);
    free(given);
    whole_close(&w);
}

long whole_polar_scratch(int rows, int cols) {
    whole w;
    whole_open(&w, rows, cols);
    const long size = bcop_polar_scratch(&w.rows);
    whole_close(&w);
    return size;
}

long whole_tangent_scratch(int rows, int cols) {
    whole w;
    whole_open(&w, rows, cols);
    const long size = bcop_tangent_scratch(&w.rows);
    whole_close(&w);
    return size;
}

void whole_project(int rows, int cols, const float *u, float *g, float *scratch) {
    whole w;
    whole_open(&w, rows, cols);
    bcop_tangent_project(&w.rows, u, g, scratch);
    whole_close(&w);
}
