/* Whether all ranks see the same data: folders that are not shared, or not in step, otherwise show
 * only as a hang or as training on a mixture. */
#ifndef BCOP_TRAIN_SAMEDATA_H
#define BCOP_TRAIN_SAMEDATA_H

#include "comm/comm.h"
#include "data/dataset.h"

/* Compares presence, size, shape, classes and fingerprint with rank 0's; `dataset` is NULL where
 * the split is absent. BCOP_BAD_DATA naming the rank, on every rank. Collective. */
bcop_status bcop_samedata_check(const bcop_comm *comm, const bcop_dataset *dataset,
                                bcop_split split);

#endif
