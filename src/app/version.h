/* Versions of everything that matters to a result. */
#ifndef BCOP_APP_VERSION_H
#define BCOP_APP_VERSION_H

#include <stdio.h>

/* One line each: bcop, compiler, MPI, HDF5, BLAS. Does not start MPI. */
void bcop_version_print(FILE *out);

#endif
