/* The way of gradients from the lanes of a batch to those who hold the parameters.
 *
 * Each layer's lane gradient is folded into the lane tree as soon as it is formed, and with the
 * rank's last lane its nodes start on their way while earlier layers still compute; factors do when
 * the tail's backward has run for all the rank's images. A bundle's sum goes to its owner alone,
 * who pulls the gradients out of it; those of all replicated bundles are one message to every rank.
 * Factors of a dense layer go to the holders of the block: each gets the columns that its rows
 * need, and forms these rows. */
#ifndef BCOP_TRAIN_EXCHANGE_H
#define BCOP_TRAIN_EXCHANGE_H

#include "comm/columns.h"
#include "comm/lanes.h"
#include "nn/model.h"
#include "ortho/stage.h"

/* A factored layer: left^T right over the batch is the gradient of its first parameter U, and image
 * = left U. */
typedef struct bcop_exchange_factor {
    int layer;
    bcop_stage_entry *entry; /* not owned */
    int *first, *rows;       /* [ranks]: the rows that a rank holds: columns of left */
    int *cols; /* [ranks]: the columns of right and image that it needs: all or none */
    bcop_columns left, right, image;
} bcop_exchange_factor;

typedef struct bcop_exchange {
    const bcop_comm *comm;
    bcop_model *model; /* not owned */
    bcop_stage *stage; /* not owned */
    bcop_lanes sums;
    int lanes, batch;
    int lane;             /* of this rank's run, being computed */
    int parts;            /* of the sums; the last is for every rank */
    bcop_lane_part *part; /* [parts] */
    int *waiting;         /* [parts]: layers whose backward must run before it is complete */
    int *part_of;         /* [layers]: -1: the layer has no lane gradient */
    int factors;
    bcop_exchange_factor *factor; /* [factors] */
    int *row;                     /* [ranks + 1]: images of the batch before a rank's */
    int *zero;                    /* [ranks] */
    bcop_arena tables;
} bcop_exchange;

/* Makes the tables for `lanes` lanes of batch/lanes images, and places the layers' lane gradients
 * (layer->lane_at). Model and stage must be open and outlive it. BCOP_INTERNAL without memory.
 * Local. */
bcop_status bcop_exchange_open(bcop_exchange *x, const bcop_comm *comm, bcop_model *model,
                               bcop_stage *stage, int lanes, int batch);
void bcop_exchange_close(bcop_exchange *x); /* an exchange of zeros is allowed */

/* Takes the memory, in both passes of the arena, and gives the model its factors'. Local. */
void bcop_exchange_plan(bcop_exchange *x, bcop_arena *arena);

/* One step: start; `factors` when the model's backward has completed them; for every lane of the
 * run the lane gradient at bcop_exchange_lane, with `done` as the hook of the model's run, then
 * next; finish. Local but for messages on their way. */
void bcop_exchange_start(bcop_exchange *x);
void bcop_exchange_factors(bcop_exchange *x);
float *bcop_exchange_lane(const bcop_exchange *x);
bcop_model_hook bcop_exchange_done; /* context: the exchange */
void bcop_exchange_next(bcop_exchange *x);

/* Waits for what is under way, and fills the gradients of the rows that this rank holds or forms.
 * Collective. */
void bcop_exchange_finish(bcop_exchange *x);

/* What this rank sends in one step: each message, and their sum added to `traffic`. Local. */
void bcop_exchange_list(const bcop_exchange *x, bcop_traffic_visitor v);
void bcop_exchange_count(const bcop_exchange *x, bcop_traffic *traffic);

#endif
