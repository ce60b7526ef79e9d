/* Text for people, on stderr. Only the rank that speaks (rank 0) prints; the others are silent. */
#ifndef BCOP_BASE_LOG_H
#define BCOP_BASE_LOG_H

#include <stdbool.h>

/* Says whether this process prints (default: it does). Local. */
void bcop_log_speak(bool speaks);

/* One line, `bcop: <text>`. Local. */
void bcop_log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* One line, `bcop: warning: <text>`. Local. */
void bcop_log_warn(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* One line, `bcop: error: <text>`. Local. */
void bcop_log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The one refreshing line of a long task: on a terminal, or where the launcher says with
 * BCOP_TERMINAL that one is behind the pipe, it is drawn over at most ten times a second; elsewhere
 * it becomes a plain line at most every 30 seconds. Any other message first ends it. Local. */
void bcop_log_progress(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
