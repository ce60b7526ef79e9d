#include "ortho/optimizer.h"
#include "ortho/optimizer_kinds.h"

#include <stddef.h>

const bcop_optimizer_kind *const bcop_optimizer_kinds[] = {
    &bcop_optimizer_adam,
    &bcop_optimizer_adam_block,
    &bcop_optimizer_sgd,
    &bcop_optimizer_muon,
    NULL,
};

const bcop_option bcop_optimizer_table[] = {
    {.key = "lr",
     .type = BCOP_OPTION_REAL,
     .offset = offsetof(bcop_optimizer_options, lr),
     .max = 10,
     .open_min = true,
     .fallback = "3.0e-3",
     .help = "step size on orthonormal blocks at the schedule's peak"},
    {.key = "bias_lr",
     .type = BCOP_OPTION_REAL,
     .offset = offsetof(bcop_optimizer_options, bias_lr),
     .max = 10,
     .fallback = "1.0e-3",
     .help = "step size on biases at the schedule's peak"},
    {0},
};
