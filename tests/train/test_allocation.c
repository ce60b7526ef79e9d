/* run: serial */
/* No memory is allocated inside a training step: a run of 40 steps takes as many allocations, by
 * everything in the process, as one of 20. */
#include "base/log.h"
#include "train/rundir.h"
#include "train/trainer.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static atomic_long allocations;

#ifdef __has_feature
#if __has_feature(address_sanitizer)
#define SANITIZED
#endif
#endif
#ifdef __SANITIZE_ADDRESS__
#define SANITIZED
#endif

/* The program's own definitions serve its libraries too. A sanitizer brings its own. */
#ifndef SANITIZED
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *memory, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

void *malloc(size_t size) {
    allocations++;
    return __libc_malloc(size);
}

void *calloc(size_t count, size_t size) {
    allocations++;
    return __libc_calloc(count, size);
}

void *realloc(void *memory, size_t size) {
    allocations++;
    return __libc_realloc(memory, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
    allocations++;
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size) {
    allocations++;
    *memory = __libc_memalign(alignment, size);
    return *memory ? 0 : ENOMEM;
}
#endif

static bcop_comm comm;
static char folder[] = "/tmp/bcop-allocation-XXXXXX";

/* 60 steps an epoch, so that what is measured lies inside one; all kinds of layers. */
static const char text[] =
    "name: allocation\n"
    "data: {kind: synthetic, classes: 4, count: 480, test_count: 20, holdout: 0, augment: "
    "crop_flip, crop_padding: 2}\n"
    "input: {mean: [0.5], std: [0.5]}\n"
    "model:\n"
    "  - conv: {channels: 8, kernel: 4, stride: 2}\n"
    "  - maxmin\n"
    "  - conv: {channels: 6, kernel: 3, pad: zero}\n"
    "  - groupsort: {size: 3}\n"
    "  - dense: {units: 120}\n" /* more units than inputs */
    "  - maxmin\n"
    "  - dense: {units: 4}\n"
    "train: {batch: 8, lanes: 4, epochs: 1}\n";

typedef struct setting {
    const char *optimizer, *loss, *minutes;
} setting;

/* Allocations of one whole run of `steps` steps into a folder of its own. */
static long count_run(const setting *s, long steps) {
    static int runs;
    char yaml[2048], run[BCOP_PATH_MAX];
    snprintf(yaml, sizeof yaml,
             "%soptimizer: {kind: %s}\nloss: %s\ncheckpoint: {every_minutes: %s}\n", text,
             s->optimizer, s->loss, s->minutes);
    snprintf(run, sizeof run, "%s/%d", folder, ++runs);
    bcop_config *config;
    bcop_experiment experiment;
    assert_int_equal(bcop_config_parse(yaml, strlen(yaml), "test", &config), BCOP_OK);
    assert_int_equal(bcop_experiment_read(config, &experiment), BCOP_OK);
    const bcop_train_request request = {.run = run, .max_steps = steps};
    const long before = allocations;
    const bcop_status status = bcop_trainer_run(&comm, &experiment, &request);
    const long made = allocations - before;
    bcop_experiment_free(&experiment);
    if (status != BCOP_OK)
        fail_msg("%s", bcop_status_message());
    assert_int_equal(bcop_rundir_newest(run), steps);
    return made;
}

static void needs_own_malloc(void) {
#ifdef SANITIZED
    skip();
#endif
}

static void check_no_allocation_in_a_step(void **state) {
    (void)state;
    needs_own_malloc();
    static const setting settings[] = {
        {"adam", "{kind: hinge, eps: 0.5}", "0"},
        {"adam-block", "{kind: cross_entropy, offset: 0.5}", "0"},
        {"sgd", "{kind: hinge, eps: 0.5}", "0"},
        {"muon", "{kind: cross_entropy}", "0"},
    };
    count_run(&settings[0], 20); /* what the libraries make once */
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        const long twenty = count_run(&settings[i], 20), forty = count_run(&settings[i], 40);
        assert_true(twenty > 100); /* of starting and saving */
        if (forty != twenty)
            fail_msg("%s: %ld allocations in 20 steps, %ld in 40", settings[i].optimizer, twenty,
                     forty);
    }
}

/* The same comparison sees what a step does when it allocates: here each one writes a checkpoint.
 */
static void check_that_it_can_fail(void **state) {
    (void)state;
    needs_own_malloc();
    const setting saving = {"sgd", "{kind: hinge, eps: 0.5}", "1e-9"};
    assert_true(count_run(&saving, 4) - count_run(&saving, 2) > 100);
    const long before = allocations;
    char *volatile copy = strdup("from the C library");
    free(copy);
    assert_int_equal(allocations - before, 1);
}

static int set_up(void **state) {
    (void)state;
    bcop_log_speak(false);
    return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    for (int run = 1; run < 100; run++) {
        char path[BCOP_PATH_MAX];
        snprintf(path, sizeof path, "%s/%d", folder, run);
        for (long step; (step = bcop_rundir_newest(path)) >= 0;) {
            char step_path[BCOP_PATH_MAX];
            bcop_rundir_step_path(path, step, "", step_path);
            bcop_rundir_remove(step_path);
        }
        bcop_rundir_remove(path); /* its files and links */
    }
    return rmdir(folder);
}

int main(void) {
    if (bcop_comm_open(&comm) != BCOP_OK)
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(check_no_allocation_in_a_step),
        cmocka_unit_test(check_that_it_can_fail),
    };
    const int failed = cmocka_run_group_tests(tests, set_up, tear_down);
    bcop_comm_close(&comm);
    return failed;
}
