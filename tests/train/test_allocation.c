/* run: serial */
/* No memory is allocated inside a training step: a run of 40 steps takes as many allocations as one
 * of 20, by everything in the process but OpenBLAS, which takes a small buffer of its own for some
 * products of small matrices. */
#define _GNU_SOURCE /* dl_iterate_phdr */
#include "base/log.h"
#include "train/rundir.h"
#include "train/trainer.h"

#include <errno.h>
#include <limits.h>
#include <link.h>
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

/* Where the code of OpenBLAS is. */
static uintptr_t blas_first, blas_last;

static int find_blas(struct dl_phdr_info *object, size_t size, void *context) {
    (void)size;
    (void)context;
    for (int i = 0; strstr(object->dlpi_name, "libopenblas") && i < object->dlpi_phnum; i++) {
        const ElfW(Phdr) *part = &object->dlpi_phdr[i];
        if (part->p_type != PT_LOAD || !(part->p_flags & PF_X))
            continue;
        blas_first = object->dlpi_addr + part->p_vaddr;
        blas_last = blas_first + part->p_memsz;
    }
    return 0;
}

/* The program's own definitions serve its libraries too. A sanitizer brings its own. */
#ifndef SANITIZED
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *memory, size_t size);
extern void *__libc_memalign(size_t alignment, size_t size);

static void count(const void *caller) {
    const uintptr_t at = (uintptr_t)caller;
    allocations += at < blas_first || at >= blas_last;
}

void *malloc(size_t size) {
    count(__builtin_return_address(0));
    return __libc_malloc(size);
}

void *calloc(size_t number, size_t size) {
    count(__builtin_return_address(0));
    return __libc_calloc(number, size);
}

void *realloc(void *memory, size_t size) {
    count(__builtin_return_address(0));
    return __libc_realloc(memory, size);
}

void *aligned_alloc(size_t alignment, size_t size) {
    count(__builtin_return_address(0));
    return __libc_memalign(alignment, size);
}

int posix_memalign(void **memory, size_t alignment, size_t size) {
    count(__builtin_return_address(0));
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
    assert_int_equal(bcop_rundir_linked(run, "latest"), steps);
    return made;
}

/* The fewest of three: now and then a table of HDF5's grows. */
static long count_steps(const setting *s, long steps) {
    long fewest = LONG_MAX;
    for (int i = 0; i < 3; i++) {
        const long made = count_run(s, steps);
        fewest = made < fewest ? made : fewest;
    }
    return fewest;
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
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        const long twenty = count_steps(&settings[i], 20);
        const long forty = count_steps(&settings[i], 40);
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
    assert_true(count_steps(&saving, 4) - count_steps(&saving, 2) > 100);
    const long before = allocations;
    char *volatile copy = strdup("from the C library");
    free(copy);
    assert_int_equal(allocations - before, 1);
}

static int set_up(void **state) {
    (void)state;
    bcop_log_speak(false);
    dl_iterate_phdr(find_blas, NULL);
    return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state) {
    (void)state;
    for (int run = 1; run < 100; run++) {
        char path[BCOP_PATH_MAX];
        snprintf(path, sizeof path, "%s/%d", folder, run);
        for (long step; (step = bcop_rundir_older(path, LONG_MAX, false)) >= 0;) {
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
