/* Where the coverage counters lie. In a file of its own that is compiled without coverage: where
 * clang counts it declares these two itself, and names of ours would take their place. */
extern char __start___sancov_cntrs[], __stop___sancov_cntrs[];
char *fuzz_counters_begin(void);
char *fuzz_counters_end(void);

char *fuzz_counters_begin(void) {
    return __start___sancov_cntrs;
}

char *fuzz_counters_end(void) {
    return __stop___sancov_cntrs;
}
