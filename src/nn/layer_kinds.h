/* The folder's list of layers and activations; see layer.h. */
#ifndef BCOP_NN_LAYER_KINDS_H
#define BCOP_NN_LAYER_KINDS_H

#include "nn/layer.h"

extern const bcop_layer_kind bcop_layer_conv;
extern const bcop_layer_kind bcop_layer_dense;
extern const bcop_layer_kind bcop_act_maxmin;
extern const bcop_layer_kind bcop_act_groupsort;
extern const bcop_layer_kind bcop_act_householder;

#endif
