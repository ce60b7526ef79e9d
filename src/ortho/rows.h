/* The rows of one block that a rank works on, and the sums over all its rows.
 *
 * A block is cut into row panels, a power of two of them, fixed by its shape alone: panel p holds
 * the rows floor(rows p / panels) .. floor(rows (p+1) / panels) - 1. A group of ranks holds runs of
 * panels (a group of one holds all). Sums over rows are formed per panel and added in one binary
 * tree (comm/lanes.h), products that keep rows apart are done per panel too; so a block's update
 * has the same bits whoever holds which of its rows. */
#ifndef BCOP_ORTHO_ROWS_H
#define BCOP_ORTHO_ROWS_H

#include "comm/lanes.h"

enum { BCOP_ROWS_PANELS_MAX = 16 };

typedef struct bcop_rows {
    int rows, cols; /* of the whole block */
    int panels;
    bcop_lane_run run; /* this rank's panels */
    int first, count;  /* this rank's rows */
    bcop_lanes sum;    /* of cols x cols matrices over the panels; not planned for one panel */
    double *squares;   /* [panels] */
} bcop_rows;

/* How many panels a block of so many rows has: the power of two that leaves each at least 256 rows,
 * at most BCOP_ROWS_PANELS_MAX. */
int bcop_rows_panels(int rows);

/* Takes the memory of the tables, in both passes of the arena; what the sums need is given with
 * bcop_rows_attach, one buffer for all blocks that are not worked on at the same time. `group` (at
 * most as many ranks as panels) must outlive it. Local. */
void bcop_rows_plan(bcop_rows *r, const bcop_comm *group, int rows, int cols, bcop_arena *arena);

/* Floats of the sums' memory (0 for one panel), and giving it. Local. */
long bcop_rows_buffer(const bcop_rows *r);
void bcop_rows_attach(bcop_rows *r, float *buffer);

/* g[cols][cols] = W^T W over all rows; w[count][cols] are this rank's. Collective over the group.
 */
void bcop_rows_gram(bcop_rows *r, const float *w, float *g);

/* s[cols][cols] = U^T X over all rows; u, x[count][cols]. Collective over the group. */
void bcop_rows_inner(bcop_rows *r, const float *u, const float *x, float *s);

/* y[count][cols] = alpha x[count][cols] b[cols][cols] + beta y. Local. */
void bcop_rows_apply(const bcop_rows *r, float alpha, const float *x, const float *b, float beta,
                     float *y);

/* g[count][cols] = left^T right, panel by panel: this rank's rows of a gradient, from the factors
 * of `depth` examples, left[depth][count] and right[depth][cols]. Local. */
void bcop_rows_outer(const bcop_rows *r, int depth, const float *left, const float *right,
                     float *g);

/* The sum of squares of x over all rows, in float64; x[count][cols]. Collective over the group. */
double bcop_rows_squares(bcop_rows *r, const float *x);

/* What this rank hands to MPI for `sums` cols x cols sums and `squares` sums of squares, added to
 * `traffic`. Local. */
void bcop_rows_count(const bcop_rows *r, int sums, int squares, bcop_traffic *traffic);

#endif
