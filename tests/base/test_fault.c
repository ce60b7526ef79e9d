/* run: serial */
#include "base/fault.h"

#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#ifdef BCOP_FAULTS
/* How a child that sets `text` and passes a point `times` times ended. */
static int end_of(const char *text, bcop_fault_point point, int times) {
    const pid_t child = fork();
    if (child == 0) {
        bcop_fault_set(2, text);
        for (int i = 0; i < times; i++)
            bcop_fault_at(point, NULL);
        _exit(0);
    }
    int status = 0;
    waitpid(child, &status, WUNTRACED);
    if (WIFSTOPPED(status)) {
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        return WSTOPSIG(status);
    }
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

static void kills_and_stops_at_the_right_hit(void **state) {
    (void)state;
    assert_int_equal(end_of("ckpt.write", BCOP_FAULT_CKPT_WRITE, 1), SIGKILL);
    assert_int_equal(end_of("ckpt.write:rank=2:hit=3", BCOP_FAULT_CKPT_WRITE, 2), 0);
    assert_int_equal(end_of("ckpt.write:rank=2:hit=3", BCOP_FAULT_CKPT_WRITE, 3), SIGKILL);
    assert_int_equal(end_of("ckpt.write:rank=1:hit=3", BCOP_FAULT_CKPT_WRITE, 9), 0);
    assert_int_equal(end_of("ckpt.write:hit=2:stop", BCOP_FAULT_CKPT_WRITE, 2), SIGSTOP);
    assert_int_equal(end_of("ckpt.write", BCOP_FAULT_CKPT_FLUSH, 9), 0);
}

static void fails_and_spoils(void **state) {
    (void)state;
    assert_int_equal(bcop_fault_set(0, "ckpt.sync:fail:hit=2,ckpt.link:fail:hit=2+"), BCOP_OK);
    static const bcop_status once[4] = {BCOP_OK, BCOP_IO, BCOP_OK, BCOP_OK};
    for (int i = 0; i < 4; i++) {
        assert_int_equal(bcop_fault_at(BCOP_FAULT_CKPT_SYNC, NULL), once[i]);
        assert_int_equal(bcop_fault_at(BCOP_FAULT_CKPT_LINK, NULL), i ? BCOP_IO : BCOP_OK);
    }
    assert_non_null(strstr(bcop_status_message(), "ckpt.link"));
    float x = 1;
    assert_int_equal(bcop_fault_set(0, "step.forward:nan"), BCOP_OK);
    assert_int_equal(bcop_fault_at(BCOP_FAULT_STEP_FORWARD, &x), BCOP_OK);
    assert_true(isnan(x));
}

static void refuses_wrong_texts(void **state) {
    (void)state;
    static const char *const wrong[] = {"ckpt.writ",
                                        "",
                                        ":",
                                        "ckpt.write:rank=",
                                        "ckpt.write:hit=0",
                                        "ckpt.write:hit=3x",
                                        "ckpt.write:hit=-1",
                                        "ckpt.write:die",
                                        "ckpt.write:nan",
                                        "step.agree:fail",
                                        "ckpt.write,bogus",
                                        "ckpt.write:rank=1+"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        if (wrong[i][0] && bcop_fault_set(0, wrong[i]) != BCOP_USAGE)
            fail_msg("accepted: %s", wrong[i]);
    assert_int_equal(bcop_fault_set(0, NULL), BCOP_OK);
}
#endif

static void a_build_without_points_says_so(void **state) {
    (void)state;
    unsetenv("BCOP_FAULT");
    assert_int_equal(bcop_fault_open(0), BCOP_OK);
    setenv("BCOP_FAULT", "ckpt.write:rank=1", 1);
    assert_int_equal(bcop_fault_open(0), bcop_fault_built ? BCOP_OK : BCOP_USAGE);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#ifdef BCOP_FAULTS
        cmocka_unit_test(kills_and_stops_at_the_right_hit),
        cmocka_unit_test(fails_and_spoils),
        cmocka_unit_test(refuses_wrong_texts),
#endif
        cmocka_unit_test(a_build_without_points_says_so),
    };
    return cmocka_run_group_tests_name("fault", tests, NULL, NULL) != 0;
}
