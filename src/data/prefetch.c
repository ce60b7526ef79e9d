#include "data/prefetch.h"

#include "base/arena.h"
#include "data/sampler.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>

/* Batch number n (counted from the first) lives in buffer n % 2. The caller holds number given - 1
 * and the thread may fill number `given`, never more, so the two are always in different buffers.
 */
typedef struct buffer {
    float *x;      /* [rows][height][width][channels] */
    int *label;    /* [rows] */
    long *example; /* [rows] */
} buffer;

struct bcop_prefetch {
    bcop_prefetch_plan plan;
    bcop_shape shape;
    long count, steps; /* of the dataset; of an epoch */
    bcop_arena arena;
    buffer buffer[2];

    /* the thread's own */
    int32_t *order;   /* [count], of order_epoch */
    long order_epoch; /* -1: none yet */
    float *original;  /* one example before its augmentation */

    pthread_t thread;
    pthread_mutex_t mutex; /* guards what follows */
    pthread_cond_t changed;
    long filled, given; /* numbers of batches */
    bool closing;
};

static void fill(bcop_prefetch *p, long step, buffer *to) {
    const bcop_prefetch_plan *plan = &p->plan;
    const long epoch = step / p->steps, size = bcop_shape_size(p->shape);
    if (epoch != p->order_epoch) {
        bcop_sampler_order(plan->seed, (uint32_t)epoch, p->count, p->order);
        p->order_epoch = epoch;
    }
    const int32_t *chosen = p->order + step % p->steps * plan->batch + plan->first_row;
    for (long row = 0; row < plan->rows; row++) {
        const long example = chosen[row];
        float *x = to->x + row * size;
        to->example[row] = example;
        to->label[row] = bcop_dataset_label(plan->dataset, example);
        if (plan->augment == BCOP_AUGMENT_NONE) {
            bcop_dataset_read(plan->dataset, example, x);
            continue;
        }
        bcop_dataset_read(plan->dataset, example, p->original);
        bcop_augment_apply(plan->augment, plan->crop_padding, p->shape, plan->seed, (uint32_t)epoch,
                           example, p->original, x);
    }
}

static void *work(void *argument) {
    bcop_prefetch *p = argument;
    pthread_mutex_lock(&p->mutex);
    while (!p->closing) {
        if (p->filled > p->given) {
            pthread_cond_wait(&p->changed, &p->mutex);
            continue;
        }
        const long number = p->filled;
        pthread_mutex_unlock(&p->mutex);
        fill(p, p->plan.first_step + number, &p->buffer[number % 2]);
        pthread_mutex_lock(&p->mutex);
        p->filled++;
        pthread_cond_broadcast(&p->changed);
    }
    pthread_mutex_unlock(&p->mutex);
    return NULL;
}

static void plan_memory(bcop_prefetch *p) {
    const long size = bcop_shape_size(p->shape), rows = p->plan.rows;
    for (int b = 0; b < 2; b++) {
        p->buffer[b].x = bcop_arena_floats(&p->arena, rows * size);
        p->buffer[b].label = bcop_arena_take(&p->arena, rows, sizeof(int));
        p->buffer[b].example = bcop_arena_take(&p->arena, rows, sizeof(long));
    }
    p->order = bcop_arena_take(&p->arena, p->count, sizeof(int32_t));
    p->original = bcop_arena_floats(&p->arena, size);
}

/* Signals are for the main thread: this one is born with all of them blocked. */
static bcop_status start_thread(bcop_prefetch *p) {
    sigset_t all, kept;
    sigfillset(&all);
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->changed, NULL);
    pthread_sigmask(SIG_SETMASK, &all, &kept);
    const int error = pthread_create(&p->thread, NULL, work, p);
    pthread_sigmask(SIG_SETMASK, &kept, NULL);
    if (error == 0)
        return BCOP_OK;
    pthread_cond_destroy(&p->changed);
    pthread_mutex_destroy(&p->mutex);
    errno = error;
    return bcop_status_errno(BCOP_INTERNAL, "the prefetch thread does not start");
}

bcop_status bcop_prefetch_open(const bcop_prefetch_plan *plan, bcop_prefetch **prefetch) {
    *prefetch = NULL;
    const long count = bcop_dataset_count(plan->dataset);
    if (count < plan->batch)
        return bcop_status_fail(BCOP_CONFIG, "train.batch: %ld, but there are %ld examples",
                                plan->batch, count);
    bcop_prefetch *p = calloc(1, sizeof *p);
    if (!p)
        return bcop_status_fail(BCOP_INTERNAL, "out of memory: %zu bytes", sizeof *p);
    p->plan = *plan;
    p->shape = bcop_dataset_shape(plan->dataset);
    p->count = count;
    p->steps = count / plan->batch;
    p->order_epoch = -1;
    p->arena.name = "batches";
    plan_memory(p);
    bcop_status status = bcop_arena_reserve(&p->arena);
    if (status == BCOP_OK) {
        plan_memory(p);
        status = start_thread(p);
    }
    if (status != BCOP_OK) {
        bcop_arena_free(&p->arena);
        free(p);
        return status;
    }
    *prefetch = p;
    return BCOP_OK;
}

void bcop_prefetch_next(bcop_prefetch *prefetch, bcop_batch *batch) {
    bcop_prefetch *p = prefetch;
    pthread_mutex_lock(&p->mutex);
    while (p->filled <= p->given)
        pthread_cond_wait(&p->changed, &p->mutex);
    const long number = p->given++;
    pthread_cond_broadcast(&p->changed);
    pthread_mutex_unlock(&p->mutex);
    const long step = p->plan.first_step + number;
    const buffer *from = &p->buffer[number % 2];
    *batch = (bcop_batch){.x = from->x,
                          .label = from->label,
                          .example = from->example,
                          .step = step,
                          .epoch = step / p->steps};
}

void bcop_prefetch_close(bcop_prefetch *prefetch) {
    if (!prefetch)
        return;
    pthread_mutex_lock(&prefetch->mutex);
    prefetch->closing = true;
    pthread_cond_broadcast(&prefetch->changed);
    pthread_mutex_unlock(&prefetch->mutex);
    pthread_join(prefetch->thread, NULL);
    pthread_cond_destroy(&prefetch->changed);
    pthread_mutex_destroy(&prefetch->mutex);
    bcop_arena_free(&prefetch->arena);
    free(prefetch);
}
