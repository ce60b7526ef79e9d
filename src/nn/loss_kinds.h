/* The folder's list of losses; see loss.h. */
#ifndef BCOP_NN_LOSS_KINDS_H
#define BCOP_NN_LOSS_KINDS_H

#include "nn/loss.h"

extern const bcop_loss_kind bcop_loss_hinge;
extern const bcop_loss_kind bcop_loss_cross_entropy;

#endif
