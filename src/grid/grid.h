/* Block-cyclic matrices on a grid of processes: the only door to ScaLAPACK.
 *
 * A matrix X[rows][cols] is cut into blocks of BCOP_GRID_BLOCK rows and columns, dealt cyclically:
 * its rows over the process columns, its columns over the process rows (X row-major is X^T
 * column-major, ScaLAPACK's order). Symmetric matrices have their upper triangle alone. Sums are
 * formed in ScaLAPACK's order, so results depend on the number of ranks in their last bits; numbers
 * that functions return are the same on every rank.
 *
 * Matrices live in the caller's memory; ScaLAPACK allocates work space of its own in Collective
 * functions, and ends the program where it gets none. */
#ifndef BCOP_GRID_GRID_H
#define BCOP_GRID_GRID_H

#include "comm/comm.h"

enum { BCOP_GRID_BLOCK = 128 };

typedef struct bcop_grid {
    const bcop_comm *comm;
    int rows, cols; /* processes */
    int row, col;   /* this rank's place: rank = row cols + col */
    /* BLACS: of the communicator, of the grid, and of all ranks in one line; not for planning */
    int handle, context, line;
} bcop_grid;

/* This rank's part of X[rows][cols]; the memory is the caller's. */
typedef struct bcop_grid_matrix {
    const bcop_grid *grid;
    int rows, cols;           /* of the whole */
    int held_rows, held_cols; /* here */
    float *data;              /* [held_rows][held_cols] */
} bcop_grid_matrix;

/* Arranges the ranks of `comm`, which must outlive the grid, in so many process rows; 0: the
 * largest divisor of their number up to its root. BCOP_CONFIG when it does not divide their number.
 * A communicator with a size and a rank but the handle MPI_COMM_NULL gives a grid for planning,
 * without MPI: only Local functions may be called with it. Collective. */
bcop_status bcop_grid_open(bcop_grid *grid, const bcop_comm *comm, int process_rows);
void bcop_grid_close(bcop_grid *grid); /* Collective; a grid of zeros is allowed */

/* The first row that a rank holds when rows are dealt in runs of ceil(rows / ranks); rank = number
 * of ranks: `rows`. Local. */
int bcop_grid_first_row(const bcop_grid *grid, int rows, int rank);

/* Floats of this rank's part of a matrix, and the matrix in such memory. Local. */
long bcop_grid_floats(const bcop_grid *grid, int rows, int cols);
bcop_grid_matrix bcop_grid_place(const bcop_grid *grid, int rows, int cols, float *data);

/* From whole rows to the grid, and back; x[count][cols]: the rows from bcop_grid_first_row(rank) to
 * that of the next rank. Collective. */
void bcop_grid_spread(const float *x, bcop_grid_matrix *to);
void bcop_grid_collect(const bcop_grid_matrix *from, float *x);

/* g[cols][cols] = X^T X, the upper triangle. Collective. */
void bcop_grid_gram(const bcop_grid_matrix *x, bcop_grid_matrix *g);

/* s[cols][cols] = sym(U^T X), the upper triangle; sym(A) = (A + A^T)/2. Collective. */
void bcop_grid_inner(const bcop_grid_matrix *u, const bcop_grid_matrix *x, bcop_grid_matrix *s);

/* y = alpha X S + beta y for a symmetric S[cols][cols], of which the upper triangle is read; y is
 * not x. Collective. */
void bcop_grid_multiply(float alpha, const bcop_grid_matrix *x, const bcop_grid_matrix *s,
                        float beta, bcop_grid_matrix *y);

/* x = factor x. Local. */
void bcop_grid_scale(float factor, bcop_grid_matrix *x);

/* g = diagonal I + factor g for a symmetric g. Local. */
void bcop_grid_shift(float diagonal, float factor, bcop_grid_matrix *g);

/* ||G - I||_F of a symmetric G, in float64. Collective. */
double bcop_grid_distance(const bcop_grid_matrix *g);

/* The infinity norm (largest sum of magnitudes of a row) and the Frobenius norm of a symmetric
 * G[n][n], in float64; not finite when G is not. work[n + 1]. Collective. */
void bcop_grid_norms(const bcop_grid_matrix *g, double *work, double *infinity, double *frobenius);

#endif
