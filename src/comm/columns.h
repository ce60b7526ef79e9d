/* A matrix whose rows are spread over the ranks, to be gathered by those who want some of its
 * columns: rank r holds the rows row[r] .. row[r+1] - 1 of x[rows][width], and wants the columns
 * first[r] .. first[r] + count[r] - 1 of all rows (count 0: none).
 *
 * This is how factors of a dense layer's gradient reach whoever forms rows of it. */
#ifndef BCOP_COMM_COLUMNS_H
#define BCOP_COMM_COLUMNS_H

#include "base/arena.h"
#include "comm/comm.h"

typedef struct bcop_columns {
    const bcop_comm *comm;
    int width;
    const int *row;           /* [ranks + 1], not owned */
    const int *first, *count; /* [ranks], not owned */
    float *own;               /* [own rows][width], tight */
    float *wanted;            /* [rows][count of this rank]; holds `own` when count is the width */
    float *packed;        /* for ranks that want some columns: [own rows][their count], in turn */
    MPI_Request *request; /* [2 ranks] */
    int requests;
} bcop_columns;

/* Takes the memory, in both passes of the arena. The tables must outlive it. Local. */
void bcop_columns_plan(bcop_columns *c, const bcop_comm *comm, int width, const int row[],
                       const int first[], const int count[], bcop_arena *arena);

/* The own rows are complete: they start on their way. Local. */
void bcop_columns_send(bcop_columns *c);

/* Lets messages move: MPI works on them only inside its calls. Local. */
void bcop_columns_progress(bcop_columns *c);

/* After bcop_columns_send: the wanted columns [rows][count], NULL where none are wanted. `own` may
 * be written again. Collective. */
const float *bcop_columns_receive(bcop_columns *c);

/* What this rank sends once: each message, and their sum added to *messages and *bytes. Local. */
void bcop_columns_list(const bcop_columns *c, const bcop_traffic_visitor *v);
void bcop_columns_count(const bcop_columns *c, long *messages, long *bytes);

#endif
