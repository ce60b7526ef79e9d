#include "train/schedule.h"

#include <math.h>
#include <stddef.h>

const bcop_option bcop_schedule_table[] = {
    {.key = "kind",
     .type = BCOP_OPTION_CHOICE,
     .offset = offsetof(bcop_schedule, kind),
     .choices = "constant|exponential|cosine|one-cycle",
     .fallback = "cosine",
     .help = "how the step size moves over the run"},
    {.key = "warmup",
     .type = BCOP_OPTION_REAL,
     .offset = offsetof(bcop_schedule, warmup),
     .max = 1e6,
     .fallback = "0.5",
     .unit = "epochs",
     .help = "linear rise from zero at the start; not for one-cycle"},
    {.key = "final",
     .type = BCOP_OPTION_REAL,
     .offset = offsetof(bcop_schedule, final),
     .min = 1e-9,
     .max = 1,
     .fallback = "1.0e-3",
     .help = "factor on the step size at the end; not for constant"},
    {.key = "peak",
     .type = BCOP_OPTION_REAL,
     .offset = offsetof(bcop_schedule, peak),
     .min = 0.01,
     .max = 0.99,
     .fallback = "0.3",
     .help = "one-cycle: where in the run the step size is largest"},
    {.key = "start",
     .type = BCOP_OPTION_REAL,
     .offset = offsetof(bcop_schedule, start),
     .max = 1,
     .open_min = true,
     .fallback = "0.04",
     .help = "one-cycle: factor on the step size at the start"},
    {0},
};

/* From a at p = 0 to b at p = 1 along half a cosine. */
static double ease(double a, double b, double p) {
    return b + (a - b) * (1 + cos(3.14159265358979324 * p)) / 2;
}

double bcop_schedule_factor(const bcop_schedule *s, long step, long total, long per_epoch) {
    const double p = ((double)step + 0.5) / (double)total;
    const double rise = s->warmup * (double)per_epoch;
    const double warm = rise > 0 ? fmin(1, (double)(step + 1) / rise) : 1;
    switch ((bcop_schedule_kind)s->kind) {
    case BCOP_SCHEDULE_EXPONENTIAL:
        return warm * pow(s->final, p);
    case BCOP_SCHEDULE_COSINE:
        return warm * ease(1, s->final, p);
    case BCOP_SCHEDULE_ONE_CYCLE:
        return p < s->peak ? ease(s->start, 1, p / s->peak)
                           : ease(1, s->final, (p - s->peak) / (1 - s->peak));
    case BCOP_SCHEDULE_CONSTANT:
        break;
    }
    return warm;
}
