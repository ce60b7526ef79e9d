/* What the fuzz targets of datasets share: a folder that lives as long as the process. */
#ifndef BCOP_TESTS_FUZZ_FOLDER_H
#define BCOP_TESTS_FUZZ_FOLDER_H

#include "../data/data_support.h"

static char dir[256];

static void clean(void) {
    folder_remove(dir);
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    (void)argc;
    (void)argv;
    folder_make(dir);
    atexit(clean);
    return 0;
}

#endif
