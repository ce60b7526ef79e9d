#include "base/clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

double bcop_clock_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void bcop_clock_stamp(char text[static 21]) {
    const time_t now = time(NULL);
    struct tm utc;
    gmtime_r(&now, &utc);
    strftime(text, 21, "%Y-%m-%dT%H:%M:%SZ", &utc);
}

static double unit_seconds(char unit) {
    switch (unit) {
    case 's':
        return 1;
    case 'm':
        return 60;
    case 'h':
        return 3600;
    case 'd':
        return 86400;
    default:
        return 0;
    }
}

bcop_status bcop_clock_duration(const char *text, double *seconds) {
    unsigned hours, minutes, secs;
    int end = 0;
    if (sscanf(text, "%4u:%2u:%2u%n", &hours, &minutes, &secs, &end) == 3 && !text[end] &&
        minutes < 60 && secs < 60 && strspn(text, "0123456789:") == strlen(text)) {
        *seconds = 3600.0 * hours + 60.0 * minutes + secs;
        return BCOP_OK;
    }
    double sum = 0;
    const char *p = text;
    do {
        const size_t digits = strspn(p, "0123456789");
        const double unit = digits && digits < 10 ? unit_seconds(p[digits]) : 0;
        if (unit == 0)
            return bcop_status_fail(BCOP_USAGE, "'%s' is no duration (90s, 15m, 1h30m, HH:MM:SS)",
                                    text);
        sum += (double)atol(p) * unit;
        p += digits + 1;
    } while (*p);
    *seconds = sum;
    return BCOP_OK;
}
