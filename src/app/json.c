#include "app/json.h"

#include <stdio.h>

bcop_status bcop_json_print(json_t *object) {
    if (!object)
        return bcop_status_fail(BCOP_INTERNAL, "the answer cannot be written as JSON");
    const int failed = json_dumpf(object, stdout, JSON_REAL_PRECISION(17));
    json_decref(object);
    if (failed || putchar('\n') == EOF || fflush(stdout) != 0)
        return bcop_status_errno(BCOP_IO, "stdout");
    return BCOP_OK;
}
