/* What the targets for HDF5 files share. The library keeps state and may be left broken by a
 * damaged file, so every input is tried in a child, whose coverage comes back to the fuzzer through
 * shared memory; a child that dies or takes too long is a failure, unless the library (1.10.8 does)
 * reads beyond its own memory. Metadata of new files have checksums, which the mutator mends, or
 * nothing behind them would ever be reached. */
#ifndef BCOP_TESTS_FUZZ_CHILD_H
#define BCOP_TESTS_FUZZ_CHILD_H

#include "fuzz_folder.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/wait.h>

char *fuzz_counters_begin(void); /* counters.c */
char *fuzz_counters_end(void);
extern uint32_t H5_checksum_metadata(const void *data, size_t length, uint32_t initial);

const char *__asan_default_options(void);
void __asan_set_error_report_callback(void (*callback)(const char *report));
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed);

enum { CHILD_SECONDS = 10 };

/* A damaged length makes the library ask for more than there is, and take NULL for an answer. */
const char *__asan_default_options(void) {
    return "allocator_may_return_null=1:max_allocation_size_mb=1024";
}

static bool line_has(const char *line, const char *text) {
    const char *found = strstr(line, text);
    return found && found < line + strcspn(line, "\n");
}

/* Whether the innermost frame of the stack at `line`, of the library or ours, is the library's. */
static bool in_library(const char *line) {
    while (line && *line && *line != '\n') {
        if (line_has(line, "libhdf5"))
            return true;
        if (line_has(line, "/src/") || line_has(line, "/tests/fuzz/fuzz_"))
            return false;
        line = strchr(line, '\n');
        line += line != NULL;
    }
    return false;
}

/* Memory that we gave too little of is our fault, whoever overruns it. */
static void on_report(const char *report) {
    const char *access = strstr(report, "    #0 "), *given = strstr(report, "allocated by");
    given = given ? strstr(given, "    #0 ") : NULL;
    const bool wild =
        strstr(report, "AddressSanitizer: SEGV") || strstr(report, "is a wild pointer");
    if (in_library(access) && (wild || in_library(given)))
        _exit(0);
}

static void child_run(void (*work)(const uint8_t *data, size_t size), const uint8_t *data,
                      size_t size) {
    static void *shared;
    char *begin = fuzz_counters_begin();
    const size_t counters = (size_t)(fuzz_counters_end() - begin);
    if (!shared)
        shared =
            mmap(NULL, counters + 1, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    NEED(shared != MAP_FAILED);
    const pid_t child = fork();
    NEED(child >= 0);
    if (child == 0) {
        signal(SIGALRM, SIG_DFL);
        alarm(CHILD_SECONDS);
        __asan_set_error_report_callback(on_report);
        work(data, size);
        memcpy(shared, begin, counters);
        _exit(0);
    }
    int status;
    pid_t ended;
    do
        ended = waitpid(child, &status, 0);
    while (ended < 0 && errno == EINTR);
    NEED(ended == child);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        fprintf(stderr, "the child ended with status 0x%x\n", (unsigned)status);
        abort();
    }
    memcpy(begin, shared, counters);
}

static void mend_at(uint8_t *data, size_t begin, size_t length, size_t size) {
    if (length > size || begin > size - length || size - length - begin < 4)
        return;
    const uint32_t sum = H5_checksum_metadata(data + begin, length, 0);
    for (size_t i = 0; i < 4; i++)
        data[begin + length + i] = (uint8_t)(sum >> 8 * i);
}

/* The superblock's checksum, and those of object headers. */
static void mend(uint8_t *data, size_t size) {
    if (size > 48 && data[8] >= 2)
        mend_at(data, 0, 44, size);
    for (size_t at = 48; at + 24 < size; at++) {
        if (memcmp(data + at, "OHDR", 4) != 0)
            continue;
        const uint8_t flags = data[at + 5];
        size_t head = 6 + (flags & 0x20 ? 16U : 0U) + (flags & 0x10 ? 4U : 0U), length = 0;
        for (size_t i = 0; i < (size_t)1 << (flags & 3) && at + head + i < size; i++)
            length |= (size_t)data[at + head + i] << 8 * i;
        mend_at(data, at, head + ((size_t)1 << (flags & 3)) + length, size);
    }
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t max_size, unsigned seed) {
    size = LLVMFuzzerMutate(data, size, max_size);
    if (seed % 4)
        mend(data, size);
    return size;
}

#endif
