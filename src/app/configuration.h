/* The configuration file that a command line names. */
#ifndef BCOP_APP_CONFIGURATION_H
#define BCOP_APP_CONFIGURATION_H

#include "comm/comm.h"
#include "train/experiment.h"

/* Rank 0 reads the file `path`, every rank parses the same bytes and applies the `--set` values
 * (ended by NULL). The caller frees *experiment. BCOP_NO_INPUT, BCOP_CONFIG. Collective. */
bcop_status bcop_configuration_read(const bcop_comm *comm, const char *path,
                                    const char *const set[], bcop_experiment *experiment);

#endif
