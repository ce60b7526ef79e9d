#include "base/status.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char message[1024];

static void store(const char *format, va_list args) {
    /* Formatted aside first: an argument may be the stored message itself. */
    char text[sizeof message];
    vsnprintf(text, sizeof text, format, args);
    for (char *c = text; *c; c++)
        if (*c == '\n')
            *c = ' ';
    memcpy(message, text, sizeof message);
}

bcop_status bcop_status_fail(bcop_status code, const char *format, ...) {
    va_list args;
    va_start(args, format);
    store(format, args);
    va_end(args);
    return code;
}

bcop_status bcop_status_errno(bcop_status otherwise, const char *format, ...) {
    const int error = errno;
    va_list args;
    va_start(args, format);
    store(format, args);
    va_end(args);
    const size_t used = strlen(message);
    snprintf(message + used, sizeof message - used, ": %s", strerror(error));
    if (error == ENOENT)
        return BCOP_NO_INPUT;
    if (error == EACCES || error == EPERM)
        return BCOP_PERMISSION;
    return otherwise;
}

bcop_status bcop_status_create(const char *path) {
    const bcop_status status = bcop_status_errno(BCOP_CANNOT_CREATE, "%s: cannot create", path);
    return status == BCOP_NO_INPUT ? BCOP_CANNOT_CREATE : status; /* its folder is missing */
}

const char *bcop_status_message(void) {
    return message;
}
