/* The gnuplot script of `bcop plot`: four figures, each as SVG and PNG, in the current folder. */
#ifndef BCOP_APP_PLOT_SCRIPT_H
#define BCOP_APP_PLOT_SCRIPT_H

#include "train/history.h"

#include <stdio.h>

enum { BCOP_PLOT_PARTS = 24 };

/* Where time went: names and seconds, e.g. of a profile. */
typedef struct bcop_plot_times {
    int count;
    char name[BCOP_PLOT_PARTS][64];
    double seconds[BCOP_PLOT_PARTS];
} bcop_plot_times;

/* A certified-accuracy curve. */
typedef struct bcop_plot_curve {
    long count;
    double *eps, *certified; /* [count], owned by the caller */
} bcop_plot_curve;

/* loss: of the steps (means over equal pieces of the run) and of evaluations, by epoch. accuracy:
 * clean and certified, by epoch. radius: the curve, or without one (count 0) the last evaluation's
 * radii. time: parts of the time, or without them (count 0) seconds per step by epoch. Figures
 * without data are left out. Local. */
void bcop_plot_script_write(FILE *out, const bcop_history *history, const bcop_plot_curve *curve,
                            const bcop_plot_times *times);

#endif
