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
#include "grid/grid.h"

enum { BCOP_ROWS_PANELS_MAX = 16 };

typedef struct bcop_rows {
    const bcop_comm *group;
    const bcop_grid *grid; /* NULL: panels */
    int rows, cols;        /* of the whole block */
    int panels;
    bcop_lane_run run; /* this rank's panels */
    int first, count;  /* this rank's rows */
    bcop_lanes sum;    /* of packed upper triangles over the panels; only for several panels */
    int root;          /* of the group: who works on what sums lead to, where one rank can */
    bcop_lane_part triangle; /* all of such a sum, for the root */
    bcop_lanes root_sum;     /* the same for the root alone */
    double *squares;         /* [panels] */
} bcop_rows;

/* How many panels a block of so many rows has: two from 512 rows on, and more, a power of two up to
 * BCOP_ROWS_PANELS_MAX, as long as each keeps 512 rows: products over fewer rows are slower. */
int bcop_rows_panels(int rows);

/* Takes the memory of the tables, in both passes of the arena; what the sums need is given with
 * bcop_rows_attach, one buffer for all blocks that are not worked on at the same time. `group` (at
 * most as many ranks as panels) must outlive it, `root` is one of its ranks, and *r stays where it
 * is. Local. */
void bcop_rows_plan(bcop_rows *r, const bcop_comm *group, int root, int rows, int cols,
                    bcop_arena *arena);

/* The rows of a block whose products are formed on a grid (grid/grid.h): one panel for each rank of
 * it, ceil(rows / ranks) rows, which may leave the last ranks none. The sums below are not for
 * these; what is done to them has other bits on other numbers of ranks. `grid` must outlive it.
 * Takes the memory of the tables, in both passes of the arena. Local. */
void bcop_rows_spread(bcop_rows *r, const bcop_grid *grid, int rows, int cols, bcop_arena *arena);

/* Floats of the sums' memory (0 for one panel and on a grid), and giving it. Local. */
long bcop_rows_buffer(const bcop_rows *r);
void bcop_rows_attach(bcop_rows *r, float *buffer);

/* g[cols][cols] = W^T W over all rows, the upper triangle alone, which is all that ranks exchange;
 * w[count][cols] are this rank's. Collective over the group. */
void bcop_rows_gram(bcop_rows *r, const float *w, float *g);

/* The same for the group's root alone; elsewhere g is scratch. Collective over the group. */
void bcop_rows_gram_at_root(bcop_rows *r, const float *w, float *g);

/* s[cols][cols] = sym(U^T X) over all rows, sym(A) = (A + A^T)/2, in the same way; u,
 * x[count][cols]. Collective over the group. */
void bcop_rows_inner(bcop_rows *r, const float *u, const float *x, float *s);

/* y[count][cols] = alpha x[count][cols] s[cols][cols] + beta y for a symmetric s, of which the
 * upper triangle is read. Local. */
void bcop_rows_symmetric(const bcop_rows *r, float alpha, const float *x, const float *s,
                         float beta, float *y);

/* g[count][cols] = left^T right, panel by panel: this rank's rows of a gradient, from the factors
 * of `depth` examples, left[depth][count] and right[depth][cols]. Local. */
void bcop_rows_outer(const bcop_rows *r, int depth, const float *left, const float *right,
                     float *g);

/* The sum of squares of x over all rows, in float64; x[count][cols]. Collective over the group. */
double bcop_rows_squares(bcop_rows *r, const float *x);

/* What this rank hands to MPI (on a grid: beside what ScaLAPACK does) for `sums` cols x cols sums,
 * `at_root` of them for the root, and `squares` sums of squares. Local. */
void bcop_rows_list(const bcop_rows *r, int sums, int at_root, int squares, bcop_traffic_visitor v);

#endif
