/* A board: a small piece of memory of every rank of a node that all ranks of the node can read at
 * any time, without MPI and without the rank's help: for what must be known of one that hangs. */
#ifndef BCOP_COMM_BOARD_H
#define BCOP_COMM_BOARD_H

#include "comm/comm.h"

typedef struct bcop_board {
    int node, nodes; /* this node among all, in the order of their lowest ranks */
    int count;       /* of the ranks of this node */
    int own;         /* this rank's place among them */
    int *rank;       /* [count] their numbers, ascending; owned */
    long bytes;      /* of a slot */
    void *memory;    /* [count + 1][bytes], zero at first; the last slot belongs to all */
} bcop_board;

/* Makes a board with slots of `bytes` bytes (a multiple of 64). Where ranks of a node cannot share
 * memory each gets a board of its own. The memory never has a name, so that nothing is left of it
 * however the program ends. BCOP_INTERNAL without memory. Collective. */
bcop_status bcop_board_open(const bcop_comm *comm, long bytes, bcop_board *board);
void bcop_board_close(bcop_board *board); /* a board of zeros is allowed. Local */

/* Slot `place` of the node's ranks; `count`: the common one. Local. */
void *bcop_board_slot(const bcop_board *board, int place);

#endif
