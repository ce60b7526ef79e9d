/* Status codes and the one message that goes with a failure.
 *
 * A function that can fail returns a bcop_status. On failure it has stored one line of text for
 * people with bcop_status_fail(); the program prints that line once, on one rank, as
 * `bcop: error: <text>`. The codes are the process's exit codes (sysexits where one fits). */
#ifndef BCOP_BASE_STATUS_H
#define BCOP_BASE_STATUS_H

typedef enum bcop_status {
    BCOP_OK = 0,
    BCOP_USAGE = 64,         /* wrong command line */
    BCOP_BAD_DATA = 65,      /* bad data, checkpoint or certificate */
    BCOP_NO_INPUT = 66,      /* an input, or a program that it takes, is missing */
    BCOP_INTERNAL = 70,      /* our mistake, or a lost rank */
    BCOP_CANNOT_CREATE = 73, /* an output cannot be created */
    BCOP_IO = 74,            /* I/O error, disk full */
    BCOP_INTERRUPTED = 75,   /* stopped by the system, checkpoint saved: anything may restart it */
    BCOP_PERMISSION = 77,    /* permission denied */
    BCOP_CONFIG = 78,        /* wrong configuration */
    BCOP_STOPPED = 79,       /* stopped by a person, checkpoint saved: nothing restarts it */
    BCOP_DIVERGED = 80,      /* not finite, or a block that does not converge */
    BCOP_HANG = 81           /* the watchdog ended the run */
} bcop_status;

/* Stores the message (printf rules, cut at 1,023 bytes, newlines made spaces) and returns `code`,
 * so that `return bcop_status_fail(BCOP_CONFIG, "...", ...)` is one statement. The message belongs
 * to the calling thread and is replaced by the next failure. Local. */
bcop_status bcop_status_fail(bcop_status code, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Like bcop_status_fail for a failed system call: appends ": " and strerror(errno), and chooses the
 * code from errno (ENOENT 66, EACCES/EPERM 77, otherwise `otherwise`). Local. */
bcop_status bcop_status_errno(bcop_status otherwise, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* For a file or folder that could not be made: "<path>: cannot create: <strerror(errno)>", 77 when
 * permission is denied, else 73. Local. */
bcop_status bcop_status_create(const char *path);

/* The calling thread's last message, "" if there was none. Valid until the next failure. Local. */
const char *bcop_status_message(void);

/* Returns from the calling function when `call` does not return BCOP_OK. */
#define BCOP_TRY(call)                                                                             \
    do {                                                                                           \
        const bcop_status bcop_try_status = (call);                                                \
        if (bcop_try_status != BCOP_OK)                                                            \
            return bcop_try_status;                                                                \
    } while (0)

#endif
