/* One JSON object on stdout, for machines. */
#ifndef BCOP_APP_JSON_H
#define BCOP_APP_JSON_H

#include "base/status.h"

#include <jansson.h>

/* A number, or null where it is not finite, which JSON has no word for. */
json_t *bcop_json_real(double value);

/* Prints `object` (takes the reference; NULL: a text in it was no UTF-8 or a number not finite) and
 * a newline. BCOP_IO when stdout cannot take it. Local. */
bcop_status bcop_json_print(json_t *object);

#endif
