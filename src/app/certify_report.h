/* What `bcop certify` says and writes, after bcop_certify_run on the network's certifier. */
#ifndef BCOP_APP_CERTIFY_REPORT_H
#define BCOP_APP_CERTIFY_REPORT_H

#include "app/json.h"
#include "app/network.h"

/* Adds the certificate's keys to the object of `bcop eval`; clean: its accuracy. Local. */
void bcop_certify_report_json(const bcop_network *network, const bcop_reals *eps, double clean,
                              json_t *out);

/* A table for people, in the log. Local. */
void bcop_certify_report_text(const bcop_network *network, const bcop_reals *eps, double clean);

/* CSV, one line per image: index, label, correct (of the float32 forward pass, as `eval` counts),
 * margin, radius, radius_float32, rounding. BCOP_CANNOT_CREATE, BCOP_IO. Local. */
bcop_status bcop_certify_report_images(const bcop_network *network, const char *path);

/* CSV, the certified accuracy as a function of the radius: eps, certified, low, high (the 95 %
 * interval), certified_float32. BCOP_CANNOT_CREATE, BCOP_IO. Local. */
bcop_status bcop_certify_report_curve(const bcop_network *network, const char *path);

#endif
