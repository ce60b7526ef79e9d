/* run: serial */
#include "base/arena.h"

#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

/* Under AddressSanitizer a refused allocation is an answer, not the end. */
const char *__asan_default_options(void);
const char *__asan_default_options(void) {
    return "allocator_may_return_null=1";
}

enum { PIECES = 5 };
static const long counts[PIECES] = {1, 16, 0, 17, 1000};
static const size_t sizes[PIECES] = {1, 4, 8, 4, 8};

static void take_all(bcop_arena *arena, unsigned char *piece[PIECES]) {
    for (int i = 0; i < PIECES; i++)
        piece[i] = bcop_arena_take(arena, counts[i], sizes[i]);
}

static void two_passes_give_disjoint_zeroed_pieces(void **state) {
    (void)state;
    bcop_arena arena = {.name = "test"};
    unsigned char *piece[PIECES];
    take_all(&arena, piece);
    for (int i = 0; i < PIECES; i++)
        assert_null(piece[i]);
    assert_int_equal(arena.used, 64 + 64 + 0 + 128 + 8000);
    assert_int_equal(bcop_arena_reserve(&arena), BCOP_OK);
    take_all(&arena, piece);
    assert_int_equal(arena.used, arena.size);
    for (int i = 0; i < PIECES; i++) {
        assert_int_equal((uintptr_t)piece[i] % 64, 0);
        for (size_t b = 0; b < (size_t)counts[i] * sizes[i]; b++) {
            assert_int_equal(piece[i][b], 0); /* a neighbour's mark would show */
            piece[i][b] = 0xff;
        }
    }
    bcop_arena_free(&arena);
    assert_null(arena.base);
    assert_string_equal(arena.name, "test");
    assert_int_equal(arena.used, 0);

    assert_null(bcop_arena_floats(&arena, 3)); /* it may be planned again */
    assert_int_equal(bcop_arena_reserve(&arena), BCOP_OK);
    float *x = bcop_arena_floats(&arena, 3);
    assert_true(x[0] == 0 && x[1] == 0 && x[2] == 0);
    bcop_arena_free(&arena);
}

typedef struct turns {
    unsigned char *kept[2], *first, *second[2];
} turns;

static turns take_turns(bcop_arena *arena) {
    turns t;
    t.kept[0] = bcop_arena_take(arena, 100, 1);
    bcop_arena_turn(arena);
    t.first = bcop_arena_borrow(arena, 500, 1);
    t.kept[1] = bcop_arena_take(arena, 10, 8);
    bcop_arena_turn(arena);
    t.second[0] = bcop_arena_borrow(arena, 64, 1);
    t.second[1] = (unsigned char *)bcop_arena_borrow_floats(arena, 3);
    return t;
}

static void turns_lie_in_one_place(void **state) {
    (void)state;
    for (int apart = 0; apart < 2; apart++) {
        bcop_arena arena = {.name = "turns", .apart = apart};
        assert_null(take_turns(&arena).first);
        assert_int_equal(bcop_arena_reserve(&arena), BCOP_OK);
        assert_int_equal(arena.size, 128 + 128 + 512 + (apart ? 128 : 0));
        const turns t = take_turns(&arena);
        assert_true(t.kept[0] == arena.base && t.kept[1] == arena.base + 128);
        assert_true(t.first == arena.base + 256);
        assert_true(t.second[0] == t.first + (apart ? 512 : 0));
        assert_true(t.second[1] == t.second[0] + 64);
        bcop_arena_free(&arena);
    }
}

static void an_empty_arena_works(void **state) {
    (void)state;
    bcop_arena arena = {.name = "empty"};
    assert_int_equal(bcop_arena_reserve(&arena), BCOP_OK);
    assert_non_null(bcop_arena_take(&arena, 0, 8));
    bcop_arena_free(&arena);
    bcop_arena_free(&arena);
}

static void no_memory_names_the_bytes(void **state) {
    (void)state;
    bcop_arena arena = {.name = "activations"};
    bcop_arena_take(&arena, 1L << 60, 1);
    assert_int_equal(bcop_arena_reserve(&arena), BCOP_INTERNAL);
    assert_non_null(strstr(bcop_status_message(), "1152921504606846976"));
    assert_non_null(strstr(bcop_status_message(), "activations"));
    bcop_arena_free(&arena);
}

/* The signal that ends a child which measures `first` floats and then takes `then`. */
static int ending(long first, long then) {
    fflush(NULL);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        signal(SIGABRT, SIG_DFL); /* cmocka's handler would go on with the tests */
        if (!freopen("/dev/null", "w", stderr))
            _exit(1);
        bcop_arena arena = {.name = "test"};
        bcop_arena_floats(&arena, first);
        if (bcop_arena_reserve(&arena) != BCOP_OK)
            _exit(2);
        bcop_arena_floats(&arena, then);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFSIGNALED(status) ? WTERMSIG(status) : -WEXITSTATUS(status);
}

static void mistakes_abort(void **state) {
    (void)state;
    assert_int_equal(ending(100, 100), 0);
    assert_int_equal(ending(100, 1000), SIGABRT);
    assert_int_equal(ending(100, -1), SIGABRT);
    assert_int_equal(ending(-1, 0), SIGABRT);
    assert_int_equal(ending(LONG_MAX, 0), SIGABRT); /* the bytes do not fit a size_t */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_passes_give_disjoint_zeroed_pieces),
        cmocka_unit_test(turns_lie_in_one_place),
        cmocka_unit_test(an_empty_arena_works),
        cmocka_unit_test(no_memory_names_the_bytes),
        cmocka_unit_test(mistakes_abort),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
