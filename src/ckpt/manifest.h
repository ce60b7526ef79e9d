/* MANIFEST.json: what a checkpoint folder holds, written last. A folder without a good one is no
 * checkpoint.
 *
 *   {"format": "bcop-checkpoint", "version": 1, "step": 1234, "epoch": 3,
 *    "created": "2026-11-23T09:26:19Z", "software": "bcop 0.1.0",
 *    "config": "<XXH3-64 of the text, as 16 hex digits>",
 *    "data_fingerprint": "<16 hex digits>",
 *    "provenance": {"host": "node1", "job": "4711", "ranks": 4, "threads": 1, "cpu": "...",
 *                   "blas": "...", "mpi": "...", "hdf5": "..."},                     (job or null)
 *    "files": {"state.h5": {"bytes": 123456, "structure": "<16 hex digits>"}},
 *    "block_bytes": 1048576,
 *    "hashes": {"<dataset path>": ["<16 hex digits>", ...], ...},
 *    "places": {"<dataset path>": [<offset in state.h5>, <bytes>], ...},
 *    "checksum": "<16 hex digits>"}
 *
 * files, hashes and places are the seal of state.h5 (ckpt/seal.h). The checksum is of all bytes of
 * the manifest before the comma that precedes it.
 *
 * All functions are Local: rank 0 calls them and broadcasts what the others need. */
#ifndef BCOP_CKPT_MANIFEST_H
#define BCOP_CKPT_MANIFEST_H

#include "ckpt/seal.h"

#define BCOP_MANIFEST_NAME "MANIFEST.json"

/* Who wrote a checkpoint; training gives the same bits only with the same cpu, blas and threads. */
typedef struct bcop_manifest_origin {
    char host[256], job[64]; /* job "": none */
    char cpu[128], blas[160], mpi[64], hdf5[32];
    int ranks, threads;
} bcop_manifest_origin;

typedef struct bcop_manifest {
    long step, epoch;
    char created[21]; /* UTC, "2026-11-23T09:26:19Z" */
    char software[80];
    uint64_t config; /* hash of the configuration's text */
    uint64_t data_fingerprint;
    bcop_manifest_origin origin;
    bcop_seal seal; /* of state.h5; owned */
} bcop_manifest;

/* Writes `folder`/MANIFEST.json as bcop_file_write does. BCOP_CANNOT_CREATE, BCOP_PERMISSION, or
 * BCOP_IO; BCOP_INTERNAL when the manifest would not be read back. */
bcop_status bcop_manifest_write(const char *folder, const bcop_manifest *manifest);

/* Reads `folder`/MANIFEST.json (at most 4 MiB) with all checks of checksum, types and ranges. The
 * caller frees with bcop_manifest_free(); after a failure there is nothing to free.
 * BCOP_NO_INPUT when there is none, BCOP_BAD_DATA naming file and field when it is not valid. */
bcop_status bcop_manifest_read(const char *folder, bcop_manifest *manifest);

/* The same from memory, but for the checksum; `name` is what messages call it. */
bcop_status bcop_manifest_parse(const char *name, const char *text, long bytes,
                                bcop_manifest *manifest);

/* BCOP_BAD_DATA when the text does not end with the checksum of what is before it. */
bcop_status bcop_manifest_checksum(const char *name, const char *text, long bytes);

/* Frees the seal and clears the rest. */
void bcop_manifest_free(bcop_manifest *manifest);

#endif
