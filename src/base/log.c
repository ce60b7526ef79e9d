#include "base/log.h"

#include "base/clock.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static bool silent;
static bool line_open; /* a progress line stands on the terminal without its newline */

void bcop_log_speak(bool speaks) {
    silent = !speaks;
}

static void say(const char *prefix, const char *format, va_list args) {
    if (silent)
        return;
    char text[1200];
    vsnprintf(text, sizeof text, format, args);
    fprintf(stderr, "%s%s%s\n", line_open ? "\n" : "", prefix, text);
    line_open = false;
}

void bcop_log_info(const char *format, ...) {
    va_list args;
    va_start(args, format);
    say("bcop: ", format, args);
    va_end(args);
}

void bcop_log_warn(const char *format, ...) {
    va_list args;
    va_start(args, format);
    say("bcop: warning: ", format, args);
    va_end(args);
}

void bcop_log_error(const char *format, ...) {
    va_list args;
    va_start(args, format);
    say("bcop: error: ", format, args);
    va_end(args);
}

void bcop_log_progress(const char *format, ...) {
    static double last = -1e9;
    static int terminal = -1;
    if (silent)
        return;
    if (terminal < 0)
        terminal = isatty(STDERR_FILENO) || getenv("BCOP_TERMINAL");
    const double now = bcop_clock_seconds();
    if (now - last < (terminal ? 0.1 : 30.0))
        return;
    last = now;
    char text[1200];
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    fprintf(stderr, terminal ? "\r\033[K%s" : "bcop: %s\n", text);
    line_open = terminal;
}
