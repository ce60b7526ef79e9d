#include "app/arguments.h"

#include "base/config.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static bcop_status unknown(const char *text, const bcop_argument options[]) {
    const char *names[32] = {0};
    for (int i = 0; options[i].name && i < 31; i++)
        names[i] = options[i].name;
    const char *near = bcop_config_suggest(text, names);
    return bcop_status_fail(BCOP_USAGE, "unknown option '%s'%s%s%s", text,
                            near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

static bcop_status store(const bcop_argument *option, const char *value) {
    if (option->value) {
        *option->value = value;
        return BCOP_OK;
    }
    int used = 0;
    while (option->list[used])
        used++;
    if (used == BCOP_SETS_MAX - 1)
        return bcop_status_fail(BCOP_USAGE, "%s: at most %d times", option->name,
                                BCOP_SETS_MAX - 1);
    option->list[used] = value;
    return BCOP_OK;
}

static const bcop_argument *find(const bcop_argument options[], const char *text, size_t length) {
    for (const bcop_argument *o = options; o->name; o++)
        if (strlen(o->name) == length && strncmp(o->name, text, length) == 0)
            return o;
    return NULL;
}

bcop_status bcop_arguments_read_list(int argc, char **argv, const bcop_argument options[],
                                     int least, const char *const what[], int most,
                                     const char *positional[], int *count) {
    bool only_positional = false;
    *count = 0;
    for (int i = 1; i < argc; i++) {
        char *text = argv[i];
        if (!only_positional && strcmp(text, "--") == 0) {
            only_positional = true;
        } else if (!only_positional && text[0] == '-' && text[1]) {
            const char *equals = strchr(text, '=');
            const size_t length = equals ? (size_t)(equals - text) : strlen(text);
            const bcop_argument *option = find(options, text, length);
            if (!option)
                return unknown(text, options);
            if (option->flag) {
                if (equals)
                    return bcop_status_fail(BCOP_USAGE, "%s takes no value", option->name);
                *option->flag = true;
            } else if (equals) {
                BCOP_TRY(store(option, equals + 1));
            } else if (++i < argc) {
                BCOP_TRY(store(option, argv[i]));
            } else {
                return bcop_status_fail(BCOP_USAGE, "%s needs a value", option->name);
            }
        } else if (*count == most) {
            return bcop_status_fail(BCOP_USAGE, "one %s is enough (got '%s' too)", what[least - 1],
                                    text);
        } else {
            positional[(*count)++] = text;
        }
    }
    if (*count < least)
        return bcop_status_fail(BCOP_USAGE, "a %s is needed; see bcop --help", what[*count]);
    return BCOP_OK;
}

bcop_status bcop_arguments_read(int argc, char **argv, const bcop_argument options[],
                                const char *what, const char **positional) {
    int count;
    *positional = NULL;
    return bcop_arguments_read_list(argc, argv, options, 1, &what, 1, positional, &count);
}

bcop_status bcop_arguments_count(const char *option, const char *text, long *value) {
    char *end;
    errno = 0;
    *value = strtol(text, &end, 10);
    if (errno || end == text || *end || *value < 0)
        return bcop_status_fail(BCOP_USAGE, "%s: '%s' is no whole number", option, text);
    return BCOP_OK;
}

bcop_status bcop_arguments_number(const char *option, const char *text, int least, int most,
                                  int *value) {
    long n;
    if (!text)
        return BCOP_OK;
    BCOP_TRY(bcop_arguments_count(option, text, &n));
    if (n < least || n > most)
        return bcop_status_fail(BCOP_USAGE, "%s: must lie in %d .. %d (got %s)", option, least,
                                most, text);
    *value = (int)n;
    return BCOP_OK;
}

bcop_status bcop_arguments_eps(const char *text, bcop_reals *eps) {
    *eps = (bcop_reals){0};
    for (const char *p = text;; p++) {
        const size_t length = strcspn(p, ",");
        if (eps->count == BCOP_REALS_MAX)
            return bcop_status_fail(BCOP_USAGE, "--eps: at most %d radii", BCOP_REALS_MAX);
        if (length == 0 || length >= sizeof eps->text[0])
            return bcop_status_fail(BCOP_USAGE, "--eps: '%s' is no list of radii", text);
        char *to = eps->text[eps->count];
        memcpy(to, p, length);
        to[length] = 0;
        if (!bcop_option_parse_real(to, &eps->value[eps->count]) || eps->value[eps->count] < 0)
            return bcop_status_fail(BCOP_USAGE, "--eps: '%s' is no radius (0.5 or 36/255)", to);
        eps->count++;
        p += length;
        if (!*p)
            return BCOP_OK;
    }
}
