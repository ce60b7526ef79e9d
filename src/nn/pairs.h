/* How fast differences of two logits can change: what certificates divide margins by.
 *
 *     |(z_y - z_j)(x) - (z_y - z_j)(x')| <= d_yj L ||x - x'||
 *
 * with L the model's constant and d_yj = ||e_y - e_j|| = sqrt(2); or, when the last layer is
 * normalised (dense: {normalize: rows}), with L the constant of all that comes before it and
 * d_yj = ||w_y - w_j||, since z_y - z_j = <w_y - w_j, h(x)> + b_y - b_j. So an answer y holds
 * within r = min over j != y of (z_y - z_j) / (d_yj L).
 *
 * Losses and margins are written for d_yj = sqrt(2). With other distances they are applied to
 *     t_y = z_y,   t_j = z_y - (z_y - z_j) sqrt(2) / d_yj,
 * the logits that certify as much with an orthonormal last layer. */
#ifndef BCOP_NN_PAIRS_H
#define BCOP_NN_PAIRS_H

#include "nn/loss.h"
#include "nn/model.h"

/* d_yj of the operators as built or loaded; at least the exact value, with 4 roundings to spare for
 * who divides by it. Local. */
double bcop_pairs_distance(const bcop_model *model, int y, int j);

/* The L that goes with these distances, from the whole model's bound `lipschitz`. Local. */
double bcop_pairs_constant(const bcop_model *model, double lipschitz);

/* The margin t_label - max over j != label of t_j in float64: certified at eps iff it exceeds
 * sqrt(2) L eps. Local. */
double bcop_pairs_margin(const bcop_model *model, const float *z, int label);

/* kind->evaluate on t for an image of the group, with its gradient brought back to the logits z.
 * gz not NULL, in training only: a normalised last layer is also told the slopes by the distances.
 * Local. */
double bcop_pairs_loss(const bcop_model *model, int image, const bcop_loss_kind *kind,
                       const void *options, const float *z, int label, double scale, float *gz);

#endif
