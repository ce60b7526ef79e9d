#include "app/json.h"

#include <math.h>
#include <stdio.h>

json_t *bcop_json_real(double value) {
    return isfinite(value) ? json_real(value) : json_null();
}

bcop_status bcop_json_print(json_t *object) {
    if (!object)
        return bcop_status_fail(BCOP_INTERNAL, "the answer cannot be written as JSON");
    const int failed = json_dumpf(object, stdout, JSON_REAL_PRECISION(17));
    json_decref(object);
    if (failed || putchar('\n') == EOF || fflush(stdout) != 0)
        return bcop_status_errno(BCOP_IO, "stdout");
    return BCOP_OK;
}
