/* What a checkpoint's manifest says: who wrote it, on what, and its hashes; for `bcop inspect`. */
#ifndef BCOP_APP_PROVENANCE_H
#define BCOP_APP_PROVENANCE_H

#include "train/checkpoint.h"

#include <jansson.h>

/* Host, job, ranks, threads, CPU, libraries and data; null without a manifest. A new reference. */
json_t *bcop_provenance_json(const bcop_snapshot *snapshot);

/* {"<dataset path>": ["<hash of a block>", ...]}. A new reference. */
json_t *bcop_provenance_hashes(const bcop_snapshot *snapshot);

/* The same for people. */
void bcop_provenance_print(const bcop_snapshot *snapshot);

#endif
