/* libFuzzer target: what people type on the command line. Byte 0 chooses the parser, the rest is
 * the text; for the last one a line is an argument. (--set is in fuzz_config.) */
#include "app/arguments.h"
#include "base/clock.h"
#include "data/dataset.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool condition) {
    if (!condition)
        abort();
}

static void try_eps(const char *text) {
    bcop_reals eps;
    const bcop_status status = bcop_arguments_eps(text, &eps);
    require(status == BCOP_OK || status == BCOP_USAGE);
    require(status != BCOP_OK || (eps.count >= 1 && eps.count <= BCOP_REALS_MAX));
    for (int i = 0; status == BCOP_OK && i < eps.count; i++) {
        double again;
        require(isfinite(eps.value[i]) && eps.value[i] >= 0);
        require(bcop_option_parse_real(eps.text[i], &again) && again == eps.value[i]);
    }
}

static void try_line(char *text) {
    char *argv[64] = {(char *)"train"}, *rest = text;
    int argc = 1;
    for (char *next; argc < 64 && (next = strsep(&rest, "\n"));)
        argv[argc++] = next;
    const char *run = NULL, *set[BCOP_SETS_MAX] = {0}, *positional = NULL;
    bool json = false;
    const bcop_argument options[] = {{"--run", &run, NULL, NULL},
                                     {"--json", NULL, &json, NULL},
                                     {"--set", NULL, NULL, set},
                                     {0}};
    const bcop_status status = bcop_arguments_read(argc, argv, options, "CONFIG", &positional);
    require(status == BCOP_OK ? positional != NULL : status == BCOP_USAGE);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 1)
        return 0;
    char *text = malloc(size);
    require(text);
    memcpy(text, data + 1, size - 1);
    text[size - 1] = 0;
    double seconds = 0, value = 0;
    long count = 0;
    bcop_split split;
    bcop_status status = BCOP_OK;
    switch (data[0] % 6) {
    case 0:
        status = bcop_clock_duration(text, &seconds);
        require(status != BCOP_OK || (isfinite(seconds) && seconds >= 0));
        break;
    case 1:
        try_eps(text);
        break;
    case 2:
        status = bcop_arguments_count("--steps", text, &count);
        require(status != BCOP_OK || count >= 0);
        break;
    case 3:
        require(!bcop_option_parse_real(text, &value) || isfinite(value));
        break;
    case 4:
        status = bcop_dataset_split_parse(text, &split);
        break;
    default:
        try_line(text);
    }
    require(status == BCOP_OK || status == BCOP_USAGE);
    free(text);
    return 0;
}
