/* Fault points: places where a test build (cmake -DBCOP_TESTS=ON) can be told to fail, to see that
 * nothing is lost. In other builds they are nothing at all.
 *
 * The variable BCOP_FAULT holds one or more faults, joined by commas:
 *
 *   BCOP_FAULT=point[:rank=R][:hit=N][:action]        ckpt.write:rank=2:hit=3
 *
 * rank  which rank (default: every one, each on its own count)
 * hit   the how manieth time that the rank comes by the point (default 1); `hit=3+`: from then on
 * action
 *   kill   the rank kills itself with SIGKILL (default)
 *   stop   the rank stops itself with SIGSTOP
 *   sleep  the rank sleeps for two seconds
 *   fail   the point fails with an I/O error (where the table has an f)
 *   nan    an element of what is computed becomes not a number (where the table has an n)
 *
 * A wrong specification, and any in a build without the points, ends the program with 64. */
#ifndef BCOP_BASE_FAULT_H
#define BCOP_BASE_FAULT_H

#include "base/status.h"

/* X(constant, name, kinds, when it is passed). The commit points are those of a checkpoint
 * (train/checkpoint.h); "each rank" means that the others pass it too, in the same place. */
#define BCOP_FAULT_LIST(X)                                                                         \
    X(CKPT_STATE, "ckpt.state", "f", "1 each rank, before it checks its state")                    \
    X(CKPT_CREATE, "ckpt.create", "f", "2 rank 0, the file's structure is written, not closed")    \
    X(CKPT_RESERVE, "ckpt.reserve", "f", "3 rank 0, before it takes the disk space")               \
    X(CKPT_WRITE, "ckpt.write", "f", "4 each rank, before each array (counts arrays)")             \
    X(CKPT_FLUSH, "ckpt.flush", "f", "5 each rank, before flush and close")                        \
    X(CKPT_SYNC, "ckpt.sync", "f", "6 rank 0, before the file and its folder are synced")          \
    X(CKPT_VERIFY, "ckpt.verify", "f", "7 each rank, before it reads another's blocks back")       \
    X(CKPT_MANIFEST, "ckpt.manifest", "f", "8 rank 0, before the manifest is written")             \
    X(CKPT_RENAME, "ckpt.rename", "f", "9 rank 0, before the folder gets its name")                \
    X(CKPT_LINK, "ckpt.link", "f", "9 rank 0, it has its name, before the folder is synced")       \
    X(CKPT_PRUNE, "ckpt.prune", "f", "10 rank 0, before old checkpoints are removed")              \
    X(STEP_FORWARD, "step.forward", "n", "each rank, before its first lane")                       \
    X(STEP_AGREE, "step.agree", "", "each rank, before the step's record is agreed on")            \
    X(STEP_EXCHANGE, "step.exchange", "", "each rank, before it waits for gradients")              \
    X(STEP_UPDATE, "step.update", "n", "each rank, before it updates the blocks it holds")         \
    X(STEP_BUILD, "step.build", "", "each rank, before it makes the operators")                    \
    X(EVALUATE, "evaluate", "", "each rank, when an evaluation begins")                            \
    X(LOAD_OPEN, "load.open", "f", "rank 0, before it looks at a checkpoint")                      \
    X(LOAD_READ, "load.read", "f", "rank 0, before it reads each array (counts arrays)")           \
    X(LOAD_DONE, "load.done", "", "each rank, the state is loaded")                                \
    X(METRICS_WRITE, "metrics.write", "f", "rank 0, before lines of metrics.jsonl are written")

#define BCOP_FAULT_CONSTANT(constant, name, kinds, when) BCOP_FAULT_##constant,
typedef enum bcop_fault_point {
    BCOP_FAULT_LIST(BCOP_FAULT_CONSTANT) BCOP_FAULT_POINTS
} bcop_fault_point;
#undef BCOP_FAULT_CONSTANT

/* Takes the faults that the variable BCOP_FAULT asks for on this rank. BCOP_USAGE. Local. */
bcop_status bcop_fault_open(int rank);

/* The same from a text; NULL: none. BCOP_USAGE. Local. */
bcop_status bcop_fault_set(int rank, const char *text);

/* Whether this build has the points. */
extern const int bcop_fault_built;

#ifdef BCOP_FAULTS
/* Passes a point: may not return, or fail with BCOP_IO, or set *element (NULL: there is none) to
 * NAN. Local. */
bcop_status bcop_fault_at(bcop_fault_point point, float *element);
#else
static inline bcop_status bcop_fault_at(bcop_fault_point point, float *element) {
    (void)point;
    (void)element;
    return BCOP_OK;
}
#endif

#endif
