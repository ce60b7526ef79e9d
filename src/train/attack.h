/* Attacks: the search for a small change of an image that makes the network's answer wrong.
 *
 * A point is searched for in the ball ||p - x||_2 <= eps where the margin z_y - max_{j != y} z_j is
 * least. Pixels stay in [0, 1]; where the image itself lies outside of it, between it and [0, 1].
 *   pgd   (Madry et al., ICLR 2018) `steps` steps against the margin's gradient g, normalised to
 *         ||g|| = 1 after its parts that lead out of [0, 1] are taken away, of lengths
 *         eps (1 - t/steps), each followed by the projection onto the ball and [0, 1]. The first
 *         restart begins at the image, the others uniformly in the ball.
 *   fgsm  (Goodfellow et al., ICLR 2015) one step along the signs of the gradient, of L2 length
 *         eps.
 * When a wrong answer is found, the nearest wrong one on the segment from the image to it is looked
 * for by bisection: what a certificate must stand up to is its distance.
 *
 * What an attack finds is an upper bound of the accuracy under attack, as a certificate is a lower
 * one. Random numbers are keyed by image and restart, and images are cut into the same groups on
 * any number of ranks, so the result does not depend on it. */
#ifndef BCOP_TRAIN_ATTACK_H
#define BCOP_TRAIN_ATTACK_H

#include "comm/comm.h"
#include "data/dataset.h"
#include "nn/certificate.h"

typedef struct bcop_attack_rule {
    bool fgsm; /* else pgd */
    double eps;
    int steps, restarts; /* of pgd */
    uint64_t seed;
} bcop_attack_rule;

typedef struct bcop_attack {
    const bcop_comm *comm;
    bcop_model *model;           /* not owned */
    const bcop_dataset *dataset; /* not owned */
    /* Prepared, not owned: what gives the float64 value of what is found. */
    bcop_certificate *certificate;
    float *x;              /* [group][in] the images */
    float *point;          /* [group][in] where the search stands */
    float *found, *right;  /* [group][in] the nearest wrong answers, and right ones before them */
    float *gz, *slope;     /* [group][classes], [group][in] */
    double *wish, *margin; /* [in], [group] */
    int *label, *who;      /* [group] */
    /* After a run, of every example, on every rank: */
    double *least;    /* [count] the least margin seen */
    double *distance; /* [count] of the nearest wrong answer, infinite without one; follows least */
    double *exact; /* [count] the same where it is f's answer too, in float64; follows distance */
} bcop_attack;

/* Takes the memory, in both passes of the arena, after comm, model, dataset and
 * certificate are set. Local. */
void bcop_attack_plan(bcop_attack *attack, bcop_arena *arena);

/* Attacks every example of the dataset that is answered rightly; groups are dealt to the ranks in
 * turn. Others have distance 0.  Collective. */
void bcop_attack_run(bcop_attack *attack, const bcop_attack_rule *rule);

/* The same for n <= group images attack->x[n][in] with attack->label[n], the examples first ...
 * first + n - 1, into least[n], distance[n] and exact[n]. Local. */
void bcop_attack_images(bcop_attack *attack, const bcop_attack_rule *rule, long first, int n,
                        double *least, double *distance, double *exact);

/* point[size] = the float32 image nearest to wish[size], up to rounding, among those within
 * distance eps of x[size] and between x and [0, 1]: the roundings never lead out. Local. */
void bcop_attack_project(long size, const float *x, double eps, const double *wish, float *point);

/* How many examples have a wrong answer nearer than is certified: of the float32 forward pass
 * within its radius, or of f within f's. *first, when not NULL, becomes the first of them. Local.
 */
long bcop_attack_violations(const bcop_attack *attack, const bcop_verdict *verdict, long *first);

#endif
