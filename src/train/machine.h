/* The machine that a plan is made for: a few numbers, measured by `bcop bench comm ortho conv`, or
 * given on the command line. */
#ifndef BCOP_TRAIN_MACHINE_H
#define BCOP_TRAIN_MACHINE_H

#include "base/status.h"

#include <stdio.h>

/* All of one rank, with as many of them at work as a plan has. */
typedef struct bcop_machine {
    double gemm_gflops;   /* products of forward, backward and building */
    double ortho_gflops;  /* products of updates, as bcop_stage_flops counts */
    double copy_gbs;      /* bytes read and written by everything that is no product */
    double latency_us;    /* of one message */
    double bandwidth_gbs; /* bytes sent and received, together */
    double overlap;       /* part of the backward of the last lane behind which messages move */
} bcop_machine;

/* One number of it. */
typedef struct bcop_machine_key {
    const char *name, *unit, *help;
    size_t offset;
    double fallback, most; /* 0 < value <= most, but overlap, which may be 0 */
} bcop_machine_key;

extern const bcop_machine_key bcop_machine_keys[]; /* ended by a name of NULL */

/* The number of a key. */
double bcop_machine_value(const bcop_machine *machine, const bcop_machine_key *key);

/* Those of docs/SCALING.md: one core of a server with AVX-512, ranks that share its memory. Local.
 */
bcop_machine bcop_machine_default(void);

/* Replaces what `text` gives, "key=value,key=value". BCOP_USAGE naming the key, and then *machine
 * may be changed in part. Local. */
bcop_status bcop_machine_read(const char *text, bcop_machine *machine);

/* Seconds: of products, of copies, of `messages` messages that move `bytes` bytes through this
 * rank, and of going once through `ranks` ranks in a tree. Local. */
double bcop_machine_multiply(const bcop_machine *machine, double flops);
double bcop_machine_update(const bcop_machine *machine, double flops);
double bcop_machine_copy(const bcop_machine *machine, double bytes);
double bcop_machine_send(const bcop_machine *machine, double messages, double bytes);
double bcop_machine_tree(const bcop_machine *machine, int ranks);

#endif
