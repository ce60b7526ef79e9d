/* What a rank hands to MPI, counted by purpose.
 *
 * A message counts once for every rank it goes to: a gather or broadcast of b bytes to p others
 * counts p messages and p b bytes with the sender, a reduction of b bytes one message and b bytes
 * with every rank. Messages inside ScaLAPACK and HDF5 are theirs and not counted, nor are the few
 * numbers that a grid adds up beside them (grid/grid.h). */
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

/* How a message goes. */
typedef enum bcop_traffic_way {
    BCOP_TRAFFIC_SEND,   /* to rank `to`, and the sender goes on */
    BCOP_TRAFFIC_FINISH, /* the same, of what could only be made from others' messages */
    BCOP_TRAFFIC_GATHER, /* to the others of `group` ranks from `base` on */
    BCOP_TRAFFIC_REDUCE  /* a reduction over such ranks */
} bcop_traffic_way;

/* `count` messages or reductions of `bytes` bytes each that a rank would hand to MPI; a gather is
 * counted as group - 1 messages. */
typedef struct bcop_traffic_message {
    bcop_traffic_kind kind;
    bcop_traffic_way way;
    int to;          /* of a message; of a gather or reduction -1 */
    int base, group; /* of a gather or reduction: the ranks base .. base + group - 1 */
    int block;       /* of the stage's messages about one parameter: which */
    long count, bytes;
} bcop_traffic_message;

/* Hears of messages that would be sent, kind by kind. Whoever lists them knows the kind, and how
 * often each of them goes. */
typedef struct bcop_traffic_visitor {
    void (*visit)(void *context, const bcop_traffic_message *message);
    void *context;
    bcop_traffic_kind kind; /* of what is listed next */
    int block;
    int base;   /* of the group whose ranks are told of */
    long times; /* everything listed next goes so often; 0: once */
} bcop_traffic_visitor;

/* Tells the visitor of one point-to-point message, a gather or a reduction. Local. */
void bcop_traffic_tell(const bcop_traffic_visitor *v, bcop_traffic_way way, int to, long bytes);
void bcop_traffic_tell_group(const bcop_traffic_visitor *v, bcop_traffic_way way, int group,
                             long bytes);

/* A visitor that adds what it hears of to *traffic. Local. */
bcop_traffic_visitor bcop_traffic_counter(bcop_traffic *traffic);

/* What follows is of this kind; gives the kind before. Local. */
bcop_traffic_kind bcop_traffic_label(bcop_traffic_kind kind);

/* `messages` messages of `bytes` bytes each leave this rank. Local. */
void bcop_traffic_add(long messages, long bytes);

/* Around calls of MPI: a span (base/spans.h) of category "mpi", of the present kind and the bytes
 * added since the last one. Local. */
double bcop_traffic_begin(void);
void bcop_traffic_end(double begin);

/* Everything counted since the program began. Local. */
bcop_traffic bcop_traffic_read(void);

/* "gradients", "factors", ... */
const char *bcop_traffic_name(bcop_traffic_kind kind);

#endif
