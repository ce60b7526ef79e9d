#include "base/arena.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ALIGNMENT = 64 };

void *bcop_arena_take(bcop_arena *arena, long count, size_t size) {
    if (count < 0 || (size_t)count > (SIZE_MAX / 2 - arena->used) / size) {
        fprintf(stderr, "bcop: internal: arena %s: %ld x %zu bytes\n", arena->name, count, size);
        abort();
    }
    const size_t bytes = ((size_t)count * size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    unsigned char *piece = arena->base ? arena->base + arena->used : NULL;
    arena->used += bytes;
    if (arena->base && arena->used > arena->size) {
        fprintf(stderr, "bcop: internal: arena %s: more taken than planned\n", arena->name);
        abort();
    }
    return piece;
}

float *bcop_arena_floats(bcop_arena *arena, long count) {
    return bcop_arena_take(arena, count, sizeof(float));
}

bcop_status bcop_arena_reserve(bcop_arena *arena) {
    void *base = NULL;
    arena->size = arena->used ? arena->used : ALIGNMENT;
    if (posix_memalign(&base, ALIGNMENT, arena->size))
        return bcop_status_fail(BCOP_INTERNAL, "out of memory: %zu bytes wanted for %s",
                                arena->size, arena->name);
    arena->base = memset(base, 0, arena->size);
    arena->used = 0;
    return BCOP_OK;
}

void bcop_arena_free(bcop_arena *arena) {
    free(arena->base);
    *arena = (bcop_arena){.name = arena->name};
}
