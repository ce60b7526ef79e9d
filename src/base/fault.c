#include "base/fault.h"

#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#ifndef BCOP_FAULTS

const int bcop_fault_built = 0;

bcop_status bcop_fault_set(int rank, const char *text) {
    (void)rank;
    if (!text)
        return BCOP_OK;
    return bcop_status_fail(BCOP_USAGE, "BCOP_FAULT: this build has no fault points "
                                        "(cmake -DBCOP_TESTS=ON makes one that has)");
}

#else

const int bcop_fault_built = 1;

enum { FAULTS_MAX = 16 };

typedef enum action { KILL, STOP, SLEEP, FAIL, TO_NAN, ACTIONS } action;

static const char *const action_name[ACTIONS] = {"kill", "stop", "sleep", "fail", "nan"};

#define POINT_NAME(constant, name, kinds, when) name,
#define POINT_KINDS(constant, name, kinds, when) kinds,
static const char *const point_name[] = {BCOP_FAULT_LIST(POINT_NAME)};
static const char *const point_kinds[] = {BCOP_FAULT_LIST(POINT_KINDS)};

typedef struct fault {
    int point, action;
    long rank; /* -1: every one */
    long hit, seen;
    bool onwards;
} fault;

static fault faults[FAULTS_MAX];
static int count;

static int find(const char *text, int names, const char *const name[]) {
    for (int i = 0; i < names; i++)
        if (strcmp(text, name[i]) == 0)
            return i;
    return -1;
}

static bool take_number(const char *text, const char *key, const char *ends, long *value,
                        bool *ended) {
    const size_t length = strlen(key);
    if (strncmp(text, key, length) != 0 || text[length] < '0' || text[length] > '9')
        return false;
    char *end;
    *value = strtol(text + length, &end, 10);
    *ended = *end && strcmp(end, ends) == 0;
    return !*end || *ended;
}

static bcop_status wrong(const char *text, const char *why) {
    return bcop_status_fail(BCOP_USAGE, "BCOP_FAULT: '%s': %s", text, why);
}

/* One of the words after the point's name. */
static bcop_status take_word(const char *word, fault *f) {
    bool plus = false;
    if (take_number(word, "rank=", "", &f->rank, &plus))
        return BCOP_OK;
    if (take_number(word, "hit=", "+", &f->hit, &f->onwards))
        return f->hit > 0 ? BCOP_OK : wrong(word, "hits count from 1");
    f->action = find(word, ACTIONS, action_name);
    if (f->action < 0)
        return wrong(word, "is not rank=R, hit=N, kill, stop, sleep, fail or nan");
    const char *kinds = point_kinds[f->point];
    if ((f->action == FAIL && !strchr(kinds, 'f')) || (f->action == TO_NAN && !strchr(kinds, 'n')))
        return wrong(word, "this point cannot do that");
    return BCOP_OK;
}

static bcop_status take_fault(char *text, fault *f) {
    char *rest = NULL;
    const char *name = strtok_r(text, ":", &rest);
    *f = (fault){.rank = -1, .hit = 1, .action = KILL};
    f->point = name ? find(name, BCOP_FAULT_POINTS, point_name) : -1;
    if (f->point < 0)
        return wrong(name ? name : "", "there is no such point (src/base/fault.h lists them)");
    for (const char *word; (word = strtok_r(NULL, ":", &rest));)
        BCOP_TRY(take_word(word, f));
    return BCOP_OK;
}

bcop_status bcop_fault_set(int rank, const char *text) {
    count = 0;
    if (!text)
        return BCOP_OK;
    char copy[1024], *rest = NULL;
    if (strlen(text) >= sizeof copy)
        return wrong("...", "is too long");
    strcpy(copy, text);
    for (char *at = strtok_r(copy, ",", &rest); at; at = strtok_r(NULL, ",", &rest)) {
        if (count == FAULTS_MAX)
            return wrong(at, "too many faults");
        BCOP_TRY(take_fault(at, &faults[count]));
        if (faults[count].rank < 0 || faults[count].rank == rank)
            count++;
    }
    return BCOP_OK;
}

static void act(const fault *f) {
    const struct timespec two_seconds = {.tv_sec = 2};
    if (f->action == KILL)
        raise(SIGKILL);
    else if (f->action == STOP)
        raise(SIGSTOP);
    else if (f->action == SLEEP)
        nanosleep(&two_seconds, NULL);
}

bcop_status bcop_fault_at(bcop_fault_point point, float *element) {
    bcop_status status = BCOP_OK;
    for (int i = 0; i < count; i++) {
        fault *f = &faults[i];
        if (f->point != (int)point || ++f->seen < f->hit || (f->seen > f->hit && !f->onwards))
            continue;
        act(f);
        if (f->action == FAIL)
            status = bcop_status_fail(BCOP_IO, "fault point %s", point_name[point]);
        else if (f->action == TO_NAN && element)
            *element = NAN;
    }
    return status;
}

#endif

bcop_status bcop_fault_open(int rank) {
    return bcop_fault_set(rank, getenv("BCOP_FAULT"));
}
