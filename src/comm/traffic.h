/* What a rank hands to MPI, counted by purpose.
 *
 * A message counts once for every rank it goes to: a gather or broadcast of b bytes to p others
 * counts p messages and p b bytes with the sender, a reduction of b bytes one message and b bytes
 * with every rank. Messages inside ScaLAPACK and HDF5 are theirs and not counted. */
#ifndef BCOP_COMM_TRAFFIC_H
#define BCOP_COMM_TRAFFIC_H

typedef enum bcop_traffic_kind {
    BCOP_TRAFFIC_OTHER,     /* starting, evaluating, saving */
    BCOP_TRAFFIC_GRADIENTS, /* nodes of the lane tree, and finished sums to who wants them */
    BCOP_TRAFFIC_FACTORS,   /* of dense layers' gradients */
    BCOP_TRAFFIC_RECORD,    /* agreements that close a step and an update */
    BCOP_TRAFFIC_ROWS,      /* gradient rows of a block to those who share it */
    BCOP_TRAFFIC_SUMS,      /* Gram and tangent sums over the rows of a shared block */
    BCOP_TRAFFIC_BLOCKS,    /* new blocks to every rank */
    BCOP_TRAFFIC_KINDS
} bcop_traffic_kind;

typedef struct bcop_traffic {
    long messages[BCOP_TRAFFIC_KINDS], bytes[BCOP_TRAFFIC_KINDS];
} bcop_traffic;

/* What follows is of this kind; gives the kind before. Local. */
bcop_traffic_kind bcop_traffic_label(bcop_traffic_kind kind);

/* `messages` messages of `bytes` bytes each leave this rank. Local. */
void bcop_traffic_add(long messages, long bytes);

/* Everything counted since the program began. Local. */
bcop_traffic bcop_traffic_read(void);

/* "gradients", "factors", ... */
const char *bcop_traffic_name(bcop_traffic_kind kind);

#endif
