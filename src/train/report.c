#include "train/report.h"

#include "base/log.h"
#include "linalg/rounding.h"

#include <math.h>
#include <stdio.h>

void bcop_report_step(bcop_metrics *metrics, const bcop_experiment *e,
                      const bcop_report_step_taken *t) {
    const long step = t->progress->step;
    bcop_metrics_add(
        metrics, false,
        "{\"kind\":\"train\",\"step\":%ld,\"epoch\":%ld,\"loss\":%.9g,\"accuracy\":%.9g,"
        "\"lr\":%.9g,\"iterations\":%d,\"images_per_second\":%.6g}\n",
        step, t->progress->epoch, t->loss, t->accuracy, t->lr, t->iterations,
        e->train.batch / t->seconds);
    const long left = (long)((double)(t->steps - step) * t->typical);
    bcop_log_progress("epoch %ld/%d  step %ld/%ld  loss %.4f  accuracy %.3f  %.0f images/s  "
                      "%ld:%02ld:%02ld left",
                      (step - 1) / t->steps_per_epoch + 1, e->train.epochs, step, t->steps, t->loss,
                      t->accuracy, e->train.batch / t->typical, left / 3600, left / 60 % 60,
                      left % 60);
}

/* JSON has no word for what is not finite. */
static const char *real(char text[static 32], double value) {
    if (!isfinite(value))
        return "null";
    snprintf(text, 32, "%.17g", value);
    return text;
}

void bcop_report_evaluation(bcop_metrics *metrics, const bcop_experiment *e, const bcop_progress *p,
                            bcop_split split, const bcop_evaluation *v) {
    const bcop_reals *eps = &e->evaluate.eps;
    char certified[1024] = "", loss[32], bound[32];
    bcop_metrics_add(
        metrics, false,
        "{\"kind\":\"eval\",\"step\":%ld,\"epoch\":%ld,\"split\":\"%s\",\"examples\":%ld,"
        "\"loss\":%s,\"clean\":%.17g,\"certified\":{",
        p->step, p->epoch, bcop_dataset_split_name(split), v->examples, real(loss, v->loss),
        v->clean);
    for (int i = 0, used = 0; i < eps->count; i++) {
        bcop_metrics_add(metrics, false, "%s\"%s\":%.17g", i ? "," : "", eps->text[i],
                         v->certified[i]);
        if (used < (int)sizeof certified - 64)
            used += snprintf(certified + used, sizeof certified - (size_t)used,
                             "  certified at %s %.4f", eps->text[i], v->certified[i]);
    }
    bcop_metrics_add(metrics, true, "},\"lipschitz\":%s}\n", real(bound, v->lipschitz));
    bcop_log_info("epoch %ld  %s (%ld images): loss %.4f  clean %.4f%s  Lipschitz bound %.7f",
                  p->epoch, bcop_dataset_split_name(split), v->examples, v->loss, v->clean,
                  certified, bcop_rounding_up(v->lipschitz, 7));
}
