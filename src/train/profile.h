/* The profile of a training start (`train --profile FILE`): where a step's time goes, by phase,
 * layer and block, on every rank.
 *
 * FILE is a Chrome trace (chrome://tracing, Perfetto): one process per rank, spans of the last
 * steps within phases, with flops and bytes as arguments; key `bcop` holds what is printed too.
 * Times are each rank's own since its first span. of a rank      ms a step by phase; ms in MPI
 * calls (the exposed communication: what products do not hide) and bytes sent a step of the slowest
 * rank by layer: ms of forward, slope (the operator's gradient) and backward (the input's), GFLOP/s
 * and their share of the peak; build and pull (taps from blocks and back), form (dense gradients
 * from factors); update of each block */
#ifndef BCOP_TRAIN_PROFILE_H
#define BCOP_TRAIN_PROFILE_H

#include "comm/comm.h"

/* Begins to record. BCOP_CANNOT_CREATE, BCOP_PERMISSION when rank 0 cannot write to `file`;
 * BCOP_INTERNAL without memory. Collective. */
bcop_status bcop_profile_open(const bcop_comm *comm, const char *file);

/* Ends it: rank 0 prints the tables and writes the file. Gives `training`, the outcome of the run,
 * unless that is BCOP_OK and writing fails (BCOP_IO). Collective: every rank has the same
 * `training`. */
bcop_status bcop_profile_close(const bcop_comm *comm, const char *file, bcop_status training);

#endif
