#include "train/attack.h"

#include "base/rng.h"
#include "nn/loss.h"

#include <float.h>
#include <math.h>
#include <string.h>

enum { BISECTIONS = 16 };

void bcop_attack_plan(bcop_attack *a, bcop_arena *arena) {
    const int group = a->model->group;
    const long size = bcop_shape_size(a->model->in), count = bcop_dataset_count(a->dataset);
    a->x = bcop_arena_floats(arena, group * size);
    a->point = bcop_arena_floats(arena, group * size);
    a->found = bcop_arena_floats(arena, group * size);
    a->right = bcop_arena_floats(arena, group * size);
    a->slope = bcop_arena_floats(arena, group * size);
    a->gz = bcop_arena_floats(arena, (long)group * a->model->classes);
    a->wish = bcop_arena_take(arena, size, sizeof(double));
    a->margin = bcop_arena_take(arena, group, sizeof(double));
    a->label = bcop_arena_take(arena, group, sizeof(int));
    a->who = bcop_arena_take(arena, group, sizeof(int));
    a->least = bcop_arena_take(arena, 3 * count, sizeof(double));
    a->distance = a->least ? a->least + count : NULL;
    a->exact = a->least ? a->least + 2 * count : NULL;
}

/* ---- points near an image ---- */

static double distance_of(long size, const float *x, const float *point) {
    double sum = 0;
    for (long i = 0; i < size; i++)
        sum += pow((double)point[i] - (double)x[i], 2);
    return sqrt(sum) * (1 + (double)size * DBL_EPSILON); /* not less than it is */
}

static double lowest(float x) {
    return x < 0 ? (double)x : 0;
}

static double highest(float x) {
    return x > 1 ? (double)x : 1;
}

/* How far pixel x can go towards wish, and how far that is. */
static double room(float x, double wish, double *away) {
    *away = fabs(wish - (double)x);
    return wish < (double)x ? (double)x - lowest(x) : highest(x) - (double)x;
}

/* The projection is p = x + s (wish - x), clipped, with the largest s <= 1 for which it lies in the
   ball: sum of min(s^2 away^2, room^2) = radius^2. That sum is a concave function of s^2, so
   Newton's method from 0 goes up to the solution, through the ball. */
static double shrink(long size, const float *x, double radius, const double *wish) {
    double t = 0; /* s^2 */
    for (int step = 0; step < 64; step++) {
        double free_part = 0, full = 0;
        for (long i = 0; i < size; i++) {
            double away;
            const double left = room(x[i], wish[i], &away);
            if (t * away * away < left * left)
                free_part += away * away;
            else if (away > 0)
                full += left * left;
        }
        const double next = free_part > 0 ? (radius * radius - full) / free_part : 1;
        if (next >= 1)
            return 1;
        if (!(next > t))
            break;
        t = next;
    }
    return sqrt(t);
}

void bcop_attack_project(long size, const float *x, double eps, const double *wish, float *point) {
    double norm = 0;
    for (long i = 0; i < size; i++)
        norm += (double)x[i] * (double)x[i];
    /* Rounding to float32 moves a point by at most 2^-24 of its norm. */
    const double radius = fmax(0, eps - 1.001 * 0x1p-24 * (sqrt(norm) + eps));
    const double s = shrink(size, x, radius, wish);
    for (long i = 0; i < size; i++) {
        const double p = (double)x[i] + s * (wish[i] - (double)x[i]);
        point[i] = (float)fmin(fmax(p, lowest(x[i])), highest(x[i]));
    }
}

/* Uniform in the ball: a normal vector's direction, and u^(1/size) of the radius. */
static void start_anywhere(const bcop_attack_rule *rule, long index, int restart, long size,
                           const float *x, double *wish, float *point) {
    bcop_rng rng = bcop_rng_open(rule->seed, BCOP_RNG_ATTACK, (uint32_t)restart, (uint64_t)index);
    double norm = 0;
    for (long i = 0; i < size; i++) {
        wish[i] = bcop_rng_normal(&rng);
        norm += wish[i] * wish[i];
    }
    const double length = rule->eps * pow(bcop_rng_uniform(&rng), 1.0 / (double)size) / sqrt(norm);
    for (long i = 0; i < size; i++)
        wish[i] = (double)x[i] + length * wish[i];
    bcop_attack_project(size, x, rule->eps, wish, point);
}

/* One step of the given length from `point` along the gradient g. */
static void step_along(const bcop_attack_rule *rule, double length, long size, const float *x,
                       const float *g, double *wish, float *point) {
    double norm = 0;
    for (long i = 0; i < size; i++) {
        const double p = (double)point[i];
        const bool out = g[i] < 0 ? p <= lowest(x[i]) : p >= highest(x[i]);
        wish[i] = out || g[i] == 0 ? 0 : rule->fgsm ? copysign(1, (double)g[i]) : (double)g[i];
        norm += wish[i] * wish[i];
    }
    if (!(norm > 0))
        return;
    for (long i = 0; i < size; i++)
        wish[i] = (double)point[i] + length / sqrt(norm) * wish[i];
    bcop_attack_project(size, x, rule->eps, wish, point);
}

/* ---- the search ---- */

/* Margins of the m points, of the images who[m]. With `slopes`, gz is made to ask for the gradient
   against the margin. */
static void evaluate(bcop_attack *a, int m, bool slopes) {
    const int classes = a->model->classes;
    const float *z = bcop_model_forward(a->model, m, 0, a->point);
    for (int k = 0; k < m; k++, z += classes) {
        const int label = a->label[a->who[k]];
        a->margin[k] = bcop_loss_margin(classes, z, label);
        if (!slopes)
            continue;
        int rival = label == 0;
        for (int j = 0; j < classes; j++)
            if (j != label && z[j] > z[rival])
                rival = j;
        float *gz = a->gz + (long)k * classes;
        memset(gz, 0, (size_t)classes * sizeof *gz);
        gz[label] = -1;
        gz[rival] = 1;
    }
}

/* Keeps what the points show about their images. */
static void note(const bcop_attack *a, int m, double *least, double *distance) {
    const long size = bcop_shape_size(a->model->in);
    for (int k = 0; k < m; k++) {
        const int i = a->who[k];
        const float *point = a->point + k * size;
        if (!(a->margin[k] >= least[i]))
            least[i] = isnan(a->margin[k]) ? -INFINITY : a->margin[k];
        if (a->margin[k] > 0)
            continue;
        const double away = distance_of(size, a->x + i * size, point);
        if (away < distance[i]) {
            distance[i] = away;
            memcpy(a->found + i * size, point, (size_t)size * sizeof *point);
        }
    }
}

/* One restart: the images still answered rightly, until they are not or the steps are used up. */
static void search(bcop_attack *a, const bcop_attack_rule *rule, long first, int n, int restart,
                   double *least, double *distance) {
    const long size = bcop_shape_size(a->model->in);
    const int steps = rule->fgsm ? 1 : rule->steps;
    int m = 0;
    for (int i = 0; i < n; i++) {
        if (!(least[i] > 0))
            continue;
        const float *x = a->x + i * size;
        if (restart == 0)
            memcpy(a->point + m * size, x, (size_t)size * sizeof *x);
        else
            start_anywhere(rule, first + i, restart, size, x, a->wish, a->point + m * size);
        a->who[m++] = i;
    }
    for (int t = 0; m > 0; t++) {
        evaluate(a, m, true);
        note(a, m, least, distance);
        if (t == steps)
            return;
        bcop_model_backward_input(a->model, m, a->gz, a->slope);
        int left = 0;
        for (int k = 0; k < m; k++) {
            const int i = a->who[k];
            if (!(least[i] > 0))
                continue;
            float *point = a->point + left * size;
            memmove(point, a->point + k * size, (size_t)size * sizeof *point);
            step_along(rule, rule->eps * (1 - (double)t / steps), size, a->x + i * size,
                       a->slope + k * size, a->wish, point);
            a->who[left++] = i;
        }
        m = left;
    }
}

/* Halves the way between a right and a wrong answer, from the images answered rightly to what was
   found. */
static void bisect(bcop_attack *a, int n, double *least, double *distance) {
    const long size = bcop_shape_size(a->model->in);
    int m = 0;
    for (int i = 0; i < n; i++)
        if (distance[i] > 0 && isfinite(distance[i]))
            a->who[m++] = i;
    memcpy(a->right, a->x, (size_t)(n * size) * sizeof *a->x);
    for (int t = 0; m > 0 && t < BISECTIONS; t++) {
        for (int k = 0; k < m; k++) {
            const float *right = a->right + a->who[k] * size, *found = a->found + a->who[k] * size;
            for (long j = 0; j < size; j++)
                a->point[k * size + j] = (float)(((double)right[j] + (double)found[j]) / 2);
        }
        evaluate(a, m, false);
        note(a, m, least, distance);
        for (int k = 0; k < m; k++)
            if (a->margin[k] > 0)
                memcpy(a->right + a->who[k] * size, a->point + k * size,
                       (size_t)size * sizeof *a->point);
    }
}

/* Whether what was found (the image itself if nothing) is a wrong answer in float64 too. */
static void confirm(bcop_attack *a, int n, const double *distance, double *exact) {
    const long size = bcop_shape_size(a->model->in);
    const int classes = a->model->classes, most = a->certificate->run;
    for (int first = 0; first < n; first += most) {
        const int images = n - first < most ? n - first : most;
        const double *z = bcop_certificate_forward(a->certificate, images, a->found + first * size);
        for (int i = 0; i < images; i++, z += classes) {
            const bcop_verdict v =
                bcop_certificate_judge(a->certificate, i, z, a->label[first + i]);
            if (!(v.margin > 0))
                exact[first + i] = fmin(exact[first + i], distance[first + i]);
        }
    }
}

void bcop_attack_images(bcop_attack *a, const bcop_attack_rule *rule, long first, int n,
                        double *least, double *distance, double *exact) {
    for (int i = 0; i < n; i++)
        least[i] = distance[i] = exact[i] = INFINITY;
    memcpy(a->found, a->x, (size_t)(n * bcop_shape_size(a->model->in)) * sizeof *a->x);
    for (int r = 0; r < (rule->fgsm ? 1 : rule->restarts); r++)
        search(a, rule, first, n, r, least, distance);
    confirm(a, n, distance, exact); /* bisection ends where float32 changes its mind, not float64 */
    bisect(a, n, least, distance);
    confirm(a, n, distance, exact);
}

void bcop_attack_run(bcop_attack *a, const bcop_attack_rule *rule) {
    const long count = bcop_dataset_count(a->dataset), group = a->model->group;
    const long size = bcop_shape_size(a->model->in);
    memset(a->least, 0, 3 * (size_t)count * sizeof(double));
    for (long i = a->comm->rank * group; i < count; i += a->comm->size * group) {
        const int n = (int)(count - i < group ? count - i : group);
        for (int k = 0; k < n; k++) {
            bcop_dataset_read(a->dataset, i + k, a->x + k * size);
            a->label[k] = bcop_dataset_label(a->dataset, i + k);
        }
        bcop_attack_images(a, rule, i, n, a->least + i, a->distance + i, a->exact + i);
    }
    bcop_comm_merge(a->comm, a->least, 3 * count);
}

long bcop_attack_violations(const bcop_attack *a, const bcop_verdict *verdict, long *first) {
    long violations = 0;
    for (long i = bcop_dataset_count(a->dataset) - 1; i >= 0; i--)
        if (a->distance[i] < verdict[i].float_radius || a->exact[i] < verdict[i].radius) {
            violations++;
            if (first)
                *first = i;
        }
    return violations;
}
