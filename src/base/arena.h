/* Arenas: memory that is planned first and reserved once.
 *
 * The same code runs twice. In the first pass the arena has no memory: bcop_arena_take() only adds
 * up and returns NULL, so planning code must not touch what it gets. Then bcop_arena_reserve()
 * allocates the sum in one piece and the second pass hands out the same pieces for real:
 *
 *     bcop_arena arena = {.name = "activations"};
 *     plan(&arena);                        // measures
 *     BCOP_TRY(bcop_arena_reserve(&arena));
 *     plan(&arena);                        // assigns
 *
 * Memory that is needed for a while only is borrowed, by one after the other: each begins a turn,
 * and all turns lie in the same place, which is as large as the largest.
 *
 * So running out of memory happens at start-up only, with the number of bytes that were wanted. */
#ifndef BCOP_BASE_ARENA_H
#define BCOP_BASE_ARENA_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct bcop_arena {
    const char *name;      /* for messages; not owned */
    bool apart;            /* nothing is overwritten by others: turns lie side by side */
    unsigned char *base;   /* owned; NULL while measuring */
    size_t used;           /* bytes taken so far in this pass */
    size_t borrowed, most; /* in this turn so far, and in the largest turn of this pass */
    size_t kept, size;     /* bytes reserved: of them taken for good, and all */
} bcop_arena;

/* `count` elements of `size` bytes, aligned to 64 bytes, zeroed at reservation; NULL while
 * measuring. Asking in the second pass for more than was measured is a bug and aborts. Local. */
void *bcop_arena_take(bcop_arena *arena, long count, size_t size);

/* `count` floats; bcop_arena_take for the commonest case. Local. */
float *bcop_arena_floats(bcop_arena *arena, long count);

/* Begins a turn: what is borrowed from here on may overwrite what was borrowed before. Local. */
void bcop_arena_turn(bcop_arena *arena);

/* As bcop_arena_take and bcop_arena_floats, but lent until the next user's turn to work: what it
 * holds then is anything. Local. */
void *bcop_arena_borrow(bcop_arena *arena, long count, size_t size);
float *bcop_arena_borrow_floats(bcop_arena *arena, long count);

/* Allocates what was measured and starts the second pass. BCOP_INTERNAL with the number of bytes
 * when the system has no such memory. Local. */
bcop_status bcop_arena_reserve(bcop_arena *arena);

/* Gives the memory back; the arena may be planned again. Local. */
void bcop_arena_free(bcop_arena *arena);

#endif
