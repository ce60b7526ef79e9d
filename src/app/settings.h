/* The experiment of a command line: CONFIG, changed by --set. */
#ifndef BCOP_APP_SETTINGS_H
#define BCOP_APP_SETTINGS_H

#include "comm/comm.h"
#include "train/experiment.h"

/* Rank 0 reads the file `path`, everyone parses the same bytes; then the assignments "key=value" of
 * set[] (ended by NULL). To be freed with bcop_experiment_free. BCOP_NO_INPUT, BCOP_IO or
 * BCOP_CONFIG naming the place. Collective. */
bcop_status bcop_settings_read(const bcop_comm *comm, const char *path, const char *const set[],
                               bcop_experiment *experiment);

#endif
