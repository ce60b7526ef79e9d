/* The message pattern of one step of a plan, for simulators of networks (bench/simulate.py): one
 * line of JSON for every rank,
 *     {"rank": 0, "actions": [[...], ...]}
 * with its actions in order:
 *     ["compute", seconds]                 as the machine model says
 *     ["isend", to, bytes], ["irecv", from, bytes], ["waitall"]: of all since the last one; between
 *                                          two ranks messages are received in the order of sending
 *     ["allreduce", bytes], ["allgatherv", [bytes of every rank]]: of all ranks
 * Gathers and reductions of a part of the ranks are written as messages of each to each. */
#ifndef BCOP_TRAIN_PATTERN_H
#define BCOP_TRAIN_PATTERN_H

#include "train/plan.h"

/* Writes the step of `plan`, made with the same data and machine, to `out`; errors of `out` are to
 * be looked for afterwards. BCOP_INTERNAL without memory. Local. */
bcop_status bcop_pattern_write(const bcop_plan *plan, const bcop_worker_data *data,
                               const bcop_machine *machine, FILE *out);

#endif
