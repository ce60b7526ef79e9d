/* A plan as tables for people and as JSON for machines. */
#ifndef BCOP_APP_PLAN_PRINT_H
#define BCOP_APP_PLAN_PRINT_H

#include "train/plan.h"

#include <jansson.h>

enum { BCOP_PLAN_SCALES = 11, BCOP_PLAN_GROUPS = 4 };

/* Everything that `bcop plan` says. */
typedef struct bcop_plan_report {
    const bcop_machine *machine;
    bcop_plan plan;
    bcop_plan_step scale[BCOP_PLAN_SCALES]; /* 1, 2, 4 ... 1024 ranks */
    struct {
        int ranks;  /* 2, 4, 8, 16 */
        int shared; /* the smallest block that pays to be shared, 0: none */
        int owned;  /* the smallest blocks, one for each rank, that pay to be owned, 0: none */
    } crossover[BCOP_PLAN_GROUPS];
} bcop_plan_report;

/* Tables on stderr. Local. */
void bcop_plan_print_text(const bcop_plan_report *report);

/* The same as an object; NULL without memory. Local. */
json_t *bcop_plan_print_json(const bcop_plan_report *report);

#endif
