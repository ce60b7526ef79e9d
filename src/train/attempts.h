/* RUN/attempts.jsonl: a line when a run is started and one when that attempt ends; never cut back.
 *
 *   {"kind": "start", "attempt": 3, "time": "2026-11-23T16:00:00Z", "host": "node1", "pid": 123,
 *    "job": "4711", "ranks": 4, "step": 1200, "total": 9000}                       (job or null)
 *   {"kind": "end", "attempt": 3, "time": "...", "code": 75, "step": 1300, "steps": 100}
 *
 * `step` of a start is the one it goes on from, `total` the last one of the whole run. An attempt
 * without an end was killed; a start that is refused leaves no line. All functions are Local, for
 * rank 0. */
#ifndef BCOP_TRAIN_ATTEMPTS_H
#define BCOP_TRAIN_ATTEMPTS_H

#include "base/status.h"

#include <stdbool.h>

typedef struct bcop_attempts {
    char path[4096];
    long number;  /* of the newest attempt; 0: there was none */
    long crashes; /* of the newest attempts, those that failed at the step of this one */
    bool started; /* the newest is this one */
} bcop_attempts;

/* Reads RUN/attempts.jsonl, and counts in attempts->crashes how many of the newest attempts in a
 * row started at `step` too and failed: were killed, or ended with 70, 74 or 81. */
bcop_status bcop_attempts_read(bcop_attempts *attempts, const char *run, long step);

/* Writes the line of the start, synced. BCOP_IO, BCOP_PERMISSION. */
bcop_status bcop_attempts_start(bcop_attempts *attempts, int ranks, long step, long total);

/* Writes the line of the end; `steps` were taken since the start. Nothing when it was not started.
 * A failure is a warning; the message of bcop_status_message() stays. */
void bcop_attempts_end(bcop_attempts *attempts, int code, long step, long steps);

#endif
