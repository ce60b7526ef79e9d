/* Whether a run may be continued with a changed configuration. */
#ifndef BCOP_TRAIN_COMPATIBLE_H
#define BCOP_TRAIN_COMPATIBLE_H

#include "train/experiment.h"

/* What a resumed run must have in common with its checkpoint: seed, task, data, input, model, loss,
 * optimizer.kind, train.batch, train.lanes. BCOP_CONFIG naming the key and both values when they
 * differ. Other differences are logged. Local. */
bcop_status bcop_compatible_check(const bcop_experiment *now, const bcop_experiment *then);

#endif
