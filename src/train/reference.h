/* The reference of the configuration, from the option tables. */
#ifndef BCOP_TRAIN_REFERENCE_H
#define BCOP_TRAIN_REFERENCE_H

#include <stdio.h>

/* Every key of every section and kind with default, type, range and meaning, as YAML. Local. */
void bcop_reference_write(FILE *out);

#endif
