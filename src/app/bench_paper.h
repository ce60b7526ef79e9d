/* The baseline of the benchmarks: the orthogonalization of the BCOP paper (Li et al., NeurIPS 2019,
 * appendix C), a fixed number of Bjorck iterations from an ambient matrix with everything kept, and
 * the gradient through all of them; plain products, as fast as those are.
 *
 *   forward    W' = W (3 I - G)/2,  G = W^T W                                 2 products
 *   backward   from D = dL/dW', by d(W') = 3/2 dW - 1/2 (dW G + W dW^T W + W W^T dW):
 *              <D, dW G> = <D G, dW>,  <D, W dW^T W> = <W D^T W, dW>,
 *              <D, W W^T dW> = <W W^T D, dW>, so with S = W^T D
 *              dL/dW = 3/2 D - 1/2 (D G + W (S + S^T))                        4 products
 * of 2 rows cols^2 flops each: G is formed again, only the iterates are kept. */
#ifndef BCOP_APP_BENCH_PAPER_H
#define BCOP_APP_BENCH_PAPER_H

#include "base/arena.h"

typedef struct bcop_bench_paper {
    int rows, cols, iterations;
    float *iterate;  /* [iterations + 1][rows][cols]; the first is the input */
    float *slope[2]; /* [rows][cols]; the first is the input of backward */
    float *g, *s;    /* [cols][cols] */
} bcop_bench_paper;

/* Takes the memory, in both passes of the arena. Local. */
void bcop_bench_paper_plan(bcop_bench_paper *paper, int rows, int cols, int iterations,
                           bcop_arena *arena);

/* From the first iterate to the last, which it returns. Local. */
const float *bcop_bench_paper_forward(bcop_bench_paper *paper);

/* After forward: from slope[0] = dL/d(last iterate) (overwritten) to dL/d(first), which it returns.
 * Local. */
const float *bcop_bench_paper_backward(bcop_bench_paper *paper);

#endif
