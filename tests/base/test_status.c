/* run: serial */
#include "base/status.h"

#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

/* The exit codes that users and batch scripts rely on. */
static void codes_are_the_promised_ones(void **state) {
    (void)state;
    assert_int_equal(BCOP_OK, 0);
    assert_int_equal(BCOP_USAGE, 64);
    assert_int_equal(BCOP_BAD_DATA, 65);
    assert_int_equal(BCOP_NO_INPUT, 66);
    assert_int_equal(BCOP_INTERNAL, 70);
    assert_int_equal(BCOP_CANNOT_CREATE, 73);
    assert_int_equal(BCOP_IO, 74);
    assert_int_equal(BCOP_INTERRUPTED, 75);
    assert_int_equal(BCOP_PERMISSION, 77);
    assert_int_equal(BCOP_CONFIG, 78);
    assert_int_equal(BCOP_STOPPED, 79);
    assert_int_equal(BCOP_DIVERGED, 80);
    assert_int_equal(BCOP_HANG, 81);
}

static void fail_stores_one_line(void **state) {
    (void)state;
    assert_string_equal(bcop_status_message(), ""); /* this test runs first */
    assert_int_equal(bcop_status_fail(BCOP_CONFIG, "%s is %d", "x", 3), BCOP_CONFIG);
    assert_string_equal(bcop_status_message(), "x is 3");
    assert_int_equal(bcop_status_fail(BCOP_IO, "one\ntwo\n"), BCOP_IO);
    assert_string_equal(bcop_status_message(), "one two ");
    /* The stored message may be part of the next one. */
    bcop_status_fail(BCOP_IO, "inner");
    bcop_status_fail(BCOP_IO, "outer: %s", bcop_status_message());
    assert_string_equal(bcop_status_message(), "outer: inner");
}

static void long_messages_are_cut(void **state) {
    (void)state;
    char text[3000];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    bcop_status_fail(BCOP_IO, "%s", text);
    assert_int_equal(strlen(bcop_status_message()), 1023);
    errno = EIO;
    assert_int_equal(bcop_status_errno(BCOP_IO, "%s", text), BCOP_IO);
    assert_int_equal(strlen(bcop_status_message()), 1023);
}

static void errno_chooses_the_code(void **state) {
    (void)state;
    errno = ENOENT;
    assert_int_equal(bcop_status_errno(BCOP_IO, "cannot open %s", "f"), BCOP_NO_INPUT);
    assert_string_equal(bcop_status_message(), "cannot open f: No such file or directory");
    errno = EACCES;
    assert_int_equal(bcop_status_errno(BCOP_IO, "f"), BCOP_PERMISSION);
    assert_string_equal(bcop_status_message(), "f: Permission denied");
    errno = EPERM;
    assert_int_equal(bcop_status_errno(BCOP_CANNOT_CREATE, "f"), BCOP_PERMISSION);
    errno = ENOSPC;
    assert_int_equal(bcop_status_errno(BCOP_IO, "f"), BCOP_IO);
    assert_string_equal(bcop_status_message(), "f: No space left on device");
    errno = EEXIST;
    assert_int_equal(bcop_status_errno(BCOP_CANNOT_CREATE, "f"), BCOP_CANNOT_CREATE);
}

static int calls;

static bcop_status give(bcop_status status) {
    calls++;
    return status;
}

static bcop_status two_steps(bcop_status first, bcop_status second) {
    BCOP_TRY(give(first));
    BCOP_TRY(give(second));
    return BCOP_OK;
}

static void try_returns_the_first_failure(void **state) {
    (void)state;
    calls = 0;
    assert_int_equal(two_steps(BCOP_OK, BCOP_OK), BCOP_OK);
    assert_int_equal(calls, 2); /* each call once */
    assert_int_equal(two_steps(BCOP_OK, BCOP_IO), BCOP_IO);
    assert_int_equal(calls, 4);
    assert_int_equal(two_steps(BCOP_CONFIG, BCOP_IO), BCOP_CONFIG);
    assert_int_equal(calls, 5);
}

static void *other_thread(void *seen) {
    strcpy(seen, bcop_status_message());
    bcop_status_fail(BCOP_IO, "theirs");
    return NULL;
}

static void messages_belong_to_threads(void **state) {
    (void)state;
    char seen[1024] = "nothing";
    pthread_t thread;
    bcop_status_fail(BCOP_IO, "ours");
    assert_int_equal(pthread_create(&thread, NULL, other_thread, seen), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_string_equal(seen, "");
    assert_string_equal(bcop_status_message(), "ours");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fail_stores_one_line),
        cmocka_unit_test(long_messages_are_cut),
        cmocka_unit_test(errno_chooses_the_code),
        cmocka_unit_test(try_returns_the_first_failure),
        cmocka_unit_test(messages_belong_to_threads),
        cmocka_unit_test(codes_are_the_promised_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
