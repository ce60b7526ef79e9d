#include "data/dataset.h"

extern const bcop_set_kind bcop_set_mnist, bcop_set_cifar10, bcop_set_hdf5, bcop_set_synthetic;

const bcop_set_kind *const bcop_set_kinds[] = {
    &bcop_set_mnist, &bcop_set_cifar10, &bcop_set_hdf5, &bcop_set_synthetic, NULL,
};
