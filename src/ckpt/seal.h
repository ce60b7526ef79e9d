/* The seal of a state.h5: what its bytes must be. The arrays of the file, each in blocks of 1 MiB
 * of the array (not of the file, nor of what a rank wrote), so that neither layout nor number of
 * ranks shows in a hash; and one hash of all bytes outside of the arrays. No byte is in neither, so
 * no change to the file stays unseen, and it can be looked for without HDF5. */
#ifndef BCOP_CKPT_SEAL_H
#define BCOP_CKPT_SEAL_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    BCOP_SEAL_BLOCK = 1 << 20,      /* bytes */
    BCOP_SEAL_PATH = 160,           /* a dataset's path with its end */
    BCOP_SEAL_ARRAYS_MAX = 1 << 20, /* of a file */
};

typedef struct bcop_seal_array {
    char path[BCOP_SEAL_PATH];
    long offset, bytes; /* in the file */
    long first;         /* its first block among all */
} bcop_seal_array;

typedef struct bcop_seal {
    long bytes;             /* of the file */
    uint64_t structure;     /* XXH3-64 of the bytes outside of the arrays, in order */
    int count;              /* of arrays */
    bcop_seal_array *array; /* [count], owned */
    long blocks;
    uint64_t *hash; /* [blocks] XXH3-64, owned */
} bcop_seal;

/* How many blocks an array of so many bytes has. */
long bcop_seal_blocks(long bytes);

/* Takes memory for `count` arrays, all zero. BCOP_INTERNAL. Local. */
bcop_status bcop_seal_create(int count, bcop_seal *seal);
/* Numbers the blocks of the arrays, whose bytes are set, and takes memory for their hashes. Local.
 */
bcop_status bcop_seal_number(bcop_seal *seal);
void bcop_seal_free(bcop_seal *seal);

/* XXH3-64 of block `block` of an array of `bytes` bytes. Local. */
uint64_t bcop_seal_hash(const void *data, long bytes, long block);

/* Whether an array in memory has the hashes of its entry. Local. */
bool bcop_seal_agrees(const bcop_seal *seal, int array, const void *data);

/* The entry of a path, -1 when there is none. Local. */
int bcop_seal_find(const bcop_seal *seal, const char *path);

/* The hash of the bytes of the file outside of the arrays. BCOP_IO, BCOP_BAD_DATA when the file has
 * another size or the arrays overlap. Local. */
bcop_status bcop_seal_structure(const char *path, const bcop_seal *seal, uint64_t *hash);

/* Compares the file with the seal: its size, of the blocks those with mine(context, block), all for
 * NULL, and its structure if asked. With a choice of blocks it reads from the disk, where the
 * system can, not from the memory that was just written.
 * BCOP_BAD_DATA naming the array and where in it; BCOP_IO, BCOP_NO_INPUT. Local. */
bcop_status bcop_seal_check(const char *path, const bcop_seal *seal, bool structure,
                            bool (*mine)(const void *context, long block), const void *context);

#endif
