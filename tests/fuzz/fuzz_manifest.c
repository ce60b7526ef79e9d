/* libFuzzer target: bytes as MANIFEST.json. Corpus: corpus/manifest/. What is accepted must obey
 * the ranges that callers rely on. */
#include "ckpt/manifest.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    bcop_manifest m;
    if (bcop_manifest_parse("input", (const char *)data, (long)size, &m) != BCOP_OK)
        return 0;
    if (m.step < 0 || m.epoch < 0 || m.seal.bytes < 0 || strlen(m.created) != 20 ||
        strnlen(m.software, sizeof m.software) == sizeof m.software)
        abort();
    for (int i = 0; i < m.seal.count; i++) {
        const bcop_seal_array *a = &m.seal.array[i];
        if (a->path[0] != '/' || strnlen(a->path, sizeof a->path) == sizeof a->path ||
            a->offset < 0 || a->bytes < 0 || a->offset > m.seal.bytes - a->bytes ||
            a->first + bcop_seal_blocks(a->bytes) > m.seal.blocks)
            abort();
    }
    bcop_manifest_checksum("input", (const char *)data, (long)size);
    bcop_manifest_free(&m);
    return 0;
}
