#include "train/samedata.h"

#include <stdio.h>

bcop_status bcop_samedata_check(const bcop_comm *comm, const bcop_dataset *dataset,
                                bcop_split split) {
    uint64_t description[7] = {0};
    if (dataset) {
        const bcop_shape shape = bcop_dataset_shape(dataset);
        const uint64_t seen[7] = {1,
                                  (uint64_t)bcop_dataset_count(dataset),
                                  (uint64_t)shape.height,
                                  (uint64_t)shape.width,
                                  (uint64_t)shape.channels,
                                  (uint64_t)bcop_dataset_classes(dataset),
                                  bcop_dataset_fingerprint(dataset)};
        for (int i = 0; i < 7; i++)
            description[i] = seen[i];
    }
    char what[32];
    snprintf(what, sizeof what, "%s set", bcop_dataset_split_name(split));
    return bcop_comm_same(comm, description, sizeof description, what);
}
