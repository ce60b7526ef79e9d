#include "app/version.h"

#include "base/fault.h"
#include "ckpt/store.h"
#include "comm/comm.h"
#include "linalg/product.h"

void bcop_version_print(FILE *out) {
    fprintf(out, "bcop %s\n", BCOP_VERSION);
    fprintf(out, "compiler %s\n", __VERSION__);
    fprintf(out, "MPI %s\n", bcop_comm_library());
    fprintf(out, "HDF5 %s\n", bcop_store_library());
    fprintf(out, "BLAS %s\n", bcop_product_library());
    fprintf(out, "checkpoint format %d\n", BCOP_STORE_VERSION);
    if (bcop_fault_built)
        fprintf(out, "fault points compiled in\n");
}
