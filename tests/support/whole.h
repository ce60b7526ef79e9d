/* Blocks held whole: the rows of a block in memory of their own, and the functions of ortho/ on a
 * block that this rank alone has, given by its shape. What fails ends the test. */
#ifndef BCOP_TESTS_WHOLE_H
#define BCOP_TESTS_WHOLE_H

#include "ortho/bjorck.h"

typedef struct whole {
    bcop_rows rows;
    bcop_arena arena;
} whole;

/* All rows on this rank. */
void whole_open(whole *w, int rows, int cols);
void whole_close(whole *w);

/* This rank's part of a block whose rows a group holds, the last rank its root; to be closed like
 * the others. */
void whole_open_part(whole *w, const bcop_comm *group, int rows, int cols);

/* bjorck.h, polar.h and tangent.h; whole_polar() replaces m by its factor */
long whole_bjorck_scratch(int rows, int cols);
bcop_status whole_retract(bcop_bjorck_rule rule, const char *name, int rows, int cols, float *w,
                          float *scratch, int *iterations);
long whole_polar_scratch(int rows, int cols);
void whole_polar(int iterations, int rows, int cols, float *m, float *scratch);
long whole_tangent_scratch(int rows, int cols);
void whole_project(int rows, int cols, const float *u, float *g, float *scratch);

#endif
