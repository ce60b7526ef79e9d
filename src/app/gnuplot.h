/* Runs gnuplot on a script, as a child process without a shell. */
#ifndef BCOP_APP_GNUPLOT_H
#define BCOP_APP_GNUPLOT_H

#include "base/status.h"

#include <stddef.h>

/* Feeds `script` to gnuplot, which runs in the existing folder `folder` without anybody's start-up
 * files. BCOP_NO_INPUT when there is no gnuplot, BCOP_INTERNAL when it fails. Local. */
bcop_status bcop_gnuplot_run(const char *folder, const char *script, size_t length);

#endif
