#include "nn/pairs.h"

#include <float.h>
#include <math.h>

static const bcop_layer *last_of(const bcop_model *m) {
    return &m->layer[m->count - 1];
}

double bcop_pairs_distance(const bcop_model *m, int y, int j) {
    const bcop_layer *last = last_of(m);
    return last->normalised ? last->pairs.distance[(long)y * m->classes + j]
                            : sqrt(2) * (1 + 4 * DBL_EPSILON);
}

double bcop_pairs_constant(const bcop_model *m, double lipschitz) {
    const bcop_layer *last = last_of(m);
    if (!last->normalised)
        return lipschitz;
    /* three roundings, one of them that of the product that is undone */
    return lipschitz / last->kind->bound(last, m->bound_work) * (1 + 4 * DBL_EPSILON);
}

/* The smaller of `margin` and that of z_label - z_j = gap. A NaN is taken and stays, so that it
   never certifies: 0/0 is one too. */
static double nearer(const bcop_model *m, double margin, int label, int j, double gap) {
    const double scaled =
        last_of(m)->normalised ? sqrt(2) * (gap / bcop_pairs_distance(m, label, j)) : gap;
    return j != label && !isnan(margin) && !(scaled >= margin) ? scaled : margin;
}

double bcop_pairs_margin(const bcop_model *m, const float *z, int label) {
    double margin = INFINITY;
    for (int j = 0; j < m->classes; j++)
        margin = nearer(m, margin, label, j, (double)z[label] - (double)z[j]);
    return margin;
}

/* sqrt(2) / d for a loss, which must stay finite when two rows meet. */
static double stretch(const bcop_model *m, int y, int j) {
    return y == j ? 1 : sqrt(2) / fmax(bcop_pairs_distance(m, y, j), 1e-6);
}

double bcop_pairs_loss(const bcop_model *m, int image, const bcop_loss_kind *kind,
                       const void *options, const float *z, int label, double scale, float *gz) {
    const bcop_layer *last = last_of(m);
    const int classes = m->classes;
    if (!last->normalised)
        return kind->evaluate(options, classes, z, label, scale, gz);
    float t[BCOP_LAYER_ROWS_MAX] = {0};
    float *slope = gz ? last->pairs.slope + (long)image * classes : NULL;
    double mine = 0;
    for (int j = 0; j < classes; j++)
        t[j] = (float)((double)z[label] - ((double)z[label] - (double)z[j]) * stretch(m, label, j));
    const double loss = kind->evaluate(options, classes, t, label, scale, gz);
    if (gz)
        last->pairs.label[image] = label;
    for (int j = 0; gz && j < classes; j++) {
        const double s = stretch(m, label, j), g = (double)gz[j];
        slope[j] = (float)(g * ((double)z[label] - (double)z[j]) * s * s / sqrt(2));
        mine += g * (1 - s);
        gz[j] = (float)(g * s);
    }
    if (gz)
        gz[label] = (float)((double)gz[label] + mine);
    return loss;
}
