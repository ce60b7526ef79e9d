/* run: serial */
#include "base/clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#define COUNT(array) ((int)(sizeof(array) / sizeof *(array)))

static void durations(void **state) {
    (void)state;
    static const struct {
        const char *text;
        double seconds;
    } good[] = {
        {"90s", 90},         {"15m", 900},
        {"1h30m", 5400},     {"2d", 172800},
        {"1d2h3m4s", 93784}, {"0s", 0},
        {"100m", 6000},      {"1h0m5s", 3605},
        {"00:00:00", 0},     {"01:30:00", 5400},
        {"1:02:03", 3723},   {"48:00:00", 172800},
        {"0:00:59", 59},     {"1000:59:59", 3603599},
        {"007s", 7},
    };
    for (int i = 0; i < COUNT(good); i++) {
        double seconds = -1;
        assert_int_equal(bcop_clock_duration(good[i].text, &seconds), BCOP_OK);
        assert_true(seconds == good[i].seconds);
    }
}

static void no_durations(void **state) {
    (void)state;
    static const char *const bad[] = {
        "",         " ",        "90",       "s",        "90 s",        " 90s",     "90s ",
        "1.5h",     "-90s",     "+90s",     "1h30",     "1x",          "1H",       "90sec",
        "1h,30m",   "inf",      "nan",      "1e3s",     "0x10s",       "10:30",    "1:2:3:4",
        "01:60:00", "01:00:60", "-1:00:00", "+1:00:00", " 1:00:00",    "1:00:00 ", "1:-1:00",
        ":00:00",   "1::00",    "1:00:",    "1: 0: 0",  "10000:00:00", "1:00:00s", "9999999999s",
        "1:000:00", "1:00:000",
    };
    for (int i = 0; i < COUNT(bad); i++) {
        double seconds = -1;
        if (bcop_clock_duration(bad[i], &seconds) != BCOP_USAGE)
            fail_msg("'%s' was read as %g seconds", bad[i], seconds);
        assert_true(seconds == -1);
        if (*bad[i])
            assert_non_null(strstr(bcop_status_message(), bad[i]));
    }
}

static void seconds_pass(void **state) {
    (void)state;
    const double before = bcop_clock_seconds();
    const struct timespec pause = {.tv_nsec = 20000000};
    nanosleep(&pause, NULL);
    const double passed = bcop_clock_seconds() - before;
    assert_true(passed >= 0.0199);
    assert_true(passed < 60); /* seconds, not some other unit */
}

static void the_stamp_is_utc_now(void **state) {
    (void)state;
    char text[21];
    const time_t before = time(NULL);
    bcop_clock_stamp(text);
    const time_t after = time(NULL);
    struct tm utc = {0};
    char zone = 0;
    assert_int_equal(strlen(text), 20);
    assert_int_equal(sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d%c", &utc.tm_year, &utc.tm_mon,
                            &utc.tm_mday, &utc.tm_hour, &utc.tm_min, &utc.tm_sec, &zone),
                     7);
    assert_int_equal(zone, 'Z');
    utc.tm_year -= 1900;
    utc.tm_mon -= 1;
    const time_t stamp = timegm(&utc);
    assert_true(stamp >= before && stamp <= after);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(durations),
        cmocka_unit_test(no_durations),
        cmocka_unit_test(seconds_pass),
        cmocka_unit_test(the_stamp_is_utc_now),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
