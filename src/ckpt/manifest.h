/* MANIFEST.json: what a checkpoint folder holds, written last. A folder without a good one is no
 * checkpoint.
 *
 *   {"format": "bcop-checkpoint", "version": 1, "step": 1234, "epoch": 3,
 *    "created": "2026-11-23T09:26:19Z", "software": "bcop 0.1.0",
 *    "data_fingerprint": "<16 hex digits>",
 *    "files": {"state.h5": {"bytes": 123456}},
 *    "hashes": {"<dataset path>": "<XXH3-64 as 16 hex digits>", ...}}
 *
 * All functions are Local: rank 0 calls them and broadcasts what the others need. */
#ifndef BCOP_CKPT_MANIFEST_H
#define BCOP_CKPT_MANIFEST_H

#include "base/status.h"

#include <stdint.h>

#define BCOP_MANIFEST_NAME "MANIFEST.json"

typedef struct bcop_manifest_entry {
    char path[160]; /* of a dataset in state.h5 */
    uint64_t hash;  /* bcop_store_hash() of it */
} bcop_manifest_entry;

typedef struct bcop_manifest {
    long step, epoch;
    char created[21]; /* UTC, "2026-11-23T09:26:19Z" */
    char software[80];
    uint64_t data_fingerprint;
    long state_bytes; /* size of state.h5 */
    int count;
    bcop_manifest_entry *entry; /* [count], in the order of writing */
} bcop_manifest;

/* Writes `folder`/MANIFEST.json: a temporary name in the same folder, fsync, rename, fsync of the
 * folder; so there is an old or a new manifest at any moment, never half of one. On failure the
 * temporary is removed. BCOP_CANNOT_CREATE, BCOP_PERMISSION, or BCOP_IO; BCOP_INTERNAL when the
 * manifest would not be read back. */
bcop_status bcop_manifest_write(const char *folder, const bcop_manifest *manifest);

/* Reads `folder`/MANIFEST.json (at most 4 MiB) with all checks of types and ranges. The caller
 * frees manifest->entry with bcop_manifest_free(); after a failure there is nothing to free.
 * BCOP_NO_INPUT when there is none, BCOP_BAD_DATA naming file and field when it is not valid. */
bcop_status bcop_manifest_read(const char *folder, bcop_manifest *manifest);

/* The same from memory; `name` is what messages call it. */
bcop_status bcop_manifest_parse(const char *name, const char *text, long bytes,
                                bcop_manifest *manifest);

/* Frees the entries and clears the rest. */
void bcop_manifest_free(bcop_manifest *manifest);

#endif
