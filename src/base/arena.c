#include "base/arena.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 64 };

/* The next piece of a region from `base` on, of which *used bytes are given out. */
static void *next(const bcop_arena *arena, unsigned char *base, size_t *used, size_t limit,
                  long count, size_t size) {
    if (count < 0 || (size_t)count > (SIZE_MAX / 4 - *used) / size) {
        fprintf(stderr, "bcop: internal: arena %s: %ld x %zu bytes\n", arena->name, count, size);
        abort();
    }
    unsigned char *piece = base ? base + *used : NULL;
    *used += ((size_t)count * size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (base && *used > limit) {
        fprintf(stderr, "bcop: internal: arena %s: more taken than planned\n", arena->name);
        abort();
    }
    return piece;
}

void *bcop_arena_take(bcop_arena *arena, long count, size_t size) {
    return next(arena, arena->base, &arena->used, arena->kept, count, size);
}

float *bcop_arena_floats(bcop_arena *arena, long count) {
    return bcop_arena_take(arena, count, sizeof(float));
}

void bcop_arena_turn(bcop_arena *arena) {
    if (!arena->apart)
        arena->borrowed = 0;
}

void *bcop_arena_borrow(bcop_arena *arena, long count, size_t size) {
    unsigned char *base = arena->base ? arena->base + arena->kept : NULL;
    void *piece = next(arena, base, &arena->borrowed, arena->size - arena->kept, count, size);
    arena->most = arena->borrowed > arena->most ? arena->borrowed : arena->most;
    return piece;
}

float *bcop_arena_borrow_floats(bcop_arena *arena, long count) {
    return bcop_arena_borrow(arena, count, sizeof(float));
}

bcop_status bcop_arena_reserve(bcop_arena *arena) {
    void *base = NULL;
    arena->kept = arena->used;
    arena->size = arena->used + arena->most;
    arena->size = arena->size ? arena->size : ALIGNMENT;
    if (posix_memalign(&base, ALIGNMENT, arena->size))
        return bcop_status_fail(BCOP_INTERNAL, "out of memory: %zu bytes wanted for %s",
                                arena->size, arena->name);
    arena->base = memset(base, 0, arena->size);
    arena->used = arena->borrowed = arena->most = 0;
    return BCOP_OK;
}

void bcop_arena_free(bcop_arena *arena) {
    free(arena->base);
    *arena = (bcop_arena){.name = arena->name, .apart = arena->apart};
}
