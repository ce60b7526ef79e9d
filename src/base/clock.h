/* Time for people and for rates: never an input of the computation. */
#ifndef BCOP_BASE_CLOCK_H
#define BCOP_BASE_CLOCK_H

#include "base/status.h"

/* Seconds on a monotonic clock with an arbitrary origin. Local. */
double bcop_clock_seconds(void);

/* The date and time now in UTC as "2026-11-23T09:26:19Z" (21 bytes with the end). Local. */
void bcop_clock_stamp(char text[static 21]);

/* Reads a duration, `90s`, `15m`, `1h30m`, `2d` or `HH:MM:SS`, into seconds. BCOP_USAGE when the
 * text is none of these. Local. */
bcop_status bcop_clock_duration(const char *text, double *seconds);

#endif
