/* Where this process runs: for locks, logs and provenance, never an input of the computation. */
#ifndef BCOP_BASE_HOST_H
#define BCOP_BASE_HOST_H

/* The host's name. Local. */
const char *bcop_host_name(void);

/* The batch job's number as a text, NULL outside of one (SLURM_JOB_ID). Local. */
const char *bcop_host_job(void);

/* The CPU's model, "unknown" when the system does not say. Local. */
const char *bcop_host_cpu(void);

/* Bytes of this process in memory that no file holds: its own and what it shares; 0 when the system
 * does not say. Local. */
long bcop_host_memory(void);

#endif
