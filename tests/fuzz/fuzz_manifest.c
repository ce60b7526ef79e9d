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
    if (m.step < 0 || m.epoch < 0 || m.state_bytes < 0 || strlen(m.created) != 20 ||
        strnlen(m.software, sizeof m.software) == sizeof m.software)
        abort();
    for (int i = 0; i < m.count; i++)
        if (m.entry[i].path[0] != '/' ||
            strnlen(m.entry[i].path, sizeof m.entry[i].path) == sizeof m.entry[i].path)
            abort();
    bcop_manifest_free(&m);
    return 0;
}
