/* Certification of a split on all ranks: every image's verdict, whatever the number of ranks. */
#ifndef BCOP_TRAIN_CERTIFY_H
#define BCOP_TRAIN_CERTIFY_H

#include "comm/comm.h"
#include "data/dataset.h"
#include "nn/certificate.h"

typedef struct bcop_certifier {
    const bcop_comm *comm;
    const bcop_model *model;     /* not owned */
    const bcop_dataset *dataset; /* not owned */
    bcop_certificate certificate;
    float *x;              /* [run][in] */
    bcop_verdict *verdict; /* [count], of every example after a run, on every rank */
} bcop_certifier;

/* Takes the memory, in both passes of the arena, after comm, model and dataset are set and the
 * model is planned. Local. */
void bcop_certify_plan(bcop_certifier *certifier, bcop_arena *arena);

/* Prepares the certificate and judges every example by its label, runs dealt to the ranks in turn.
 * The model has its operators. Collective. */
void bcop_certify_run(bcop_certifier *certifier);

/* How many examples are certified at eps: of f, or of the float32 forward pass; of one class of
 * labels, or of all (-1). Local. */
long bcop_certify_count(const bcop_certifier *certifier, double eps, bool float32, int label);

#endif
