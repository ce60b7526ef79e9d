/* state.h5: tables of fields to and from parallel HDF5. The only door to HDF5 for checkpoints.
 *
 * The file holds whole canonical arrays, independent of the number of ranks; see
 * checkpoints/FORMAT.md. Written with the V110 file format only, contiguous datasets, no filters.
 */
#ifndef BCOP_CKPT_STORE_H
#define BCOP_CKPT_STORE_H

#include "ckpt/seal.h"
#include "comm/comm.h"

#include <stdbool.h>
#include <stdint.h>

enum {
    BCOP_STORE_VERSION = 1,         /* of the layout in checkpoints/FORMAT.md */
    BCOP_STORE_TEXT_LIMIT = 4 << 20 /* a text attribute is shorter than this */
};

typedef enum bcop_field_type {
    BCOP_FIELD_FLOAT,
    BCOP_FIELD_DOUBLE,
    BCOP_FIELD_LONG
} bcop_field_type;

/* One dataset. `data` holds the whole array on every rank (row-major); writing divides it over the
 * ranks, reading fills it on every rank. */
typedef struct bcop_field {
    char path[160]; /* "/layers/00-conv/blocks/H" */
    bcop_field_type type;
    int dimensions; /* 1 .. 4 */
    long size[4];
    void *data;       /* not owned */
    const char *unit; /* attribute `unit`, e.g. "1" */
    const char *help; /* attribute `description` */
} bcop_field;

/* One attribute of a group or of the root. */
typedef enum bcop_attribute_type {
    BCOP_ATTRIBUTE_TEXT,
    BCOP_ATTRIBUTE_LONG,
    BCOP_ATTRIBUTE_REAL
} bcop_attribute_type;
typedef struct bcop_attribute {
    char group[120]; /* "/" or "/layers/00-conv" */
    char name[40];
    bcop_attribute_type type;
    const char *text; /* not owned */
    long integer;
    double real;
} bcop_attribute;

/* Writes a new file `path` (must not exist): the root attributes `format` and `version` of a
 * checkpoint (unless the table begins with a `format` of its own), groups as the paths need them,
 * the attributes, the datasets; reserves the disk space before the first array is written; flushes,
 * closes, and syncs the file and its folder; reads it back, each rank the blocks that another
 * hashed when it wrote them. After each of these the ranks agree. A killed program may leave a work
 * file `path`.<something> beside it. Every rank gives the same tables. *seal, unless NULL, gets the
 * file's seal, which the caller frees. On failure every rank returns the same status, the seal is
 * empty, and the file may be left incomplete (the caller removes it): BCOP_CANNOT_CREATE when it
 * exists or its folder does not, BCOP_PERMISSION, BCOP_IO when the disk is full or fails or does
 * not hold what was written, BCOP_BAD_DATA when a text is too long, BCOP_INTERNAL when the tables
 * make no sense. Collective. */
bcop_status bcop_store_write(const bcop_comm *comm, const char *path, int attributes,
                             const bcop_attribute attribute[], int fields, const bcop_field field[],
                             bcop_seal *seal);

typedef struct bcop_store bcop_store; /* a file open for reading, on rank 0 */

/* Opens `path` for reading and checks the rules for strangers' files as they apply to what is read:
 * superblock of V110 format, root attribute `format` = "bcop-checkpoint", a known `version`.
 * Rank 0 alone reads, the others get the bytes, so all see the same file whatever its state.
 * BCOP_NO_INPUT when there is none, BCOP_BAD_DATA when it is no checkpoint; then *store is NULL.
 * `comm` must live until the close. Collective. */
bcop_status bcop_store_open(const bcop_comm *comm, const char *path, bcop_store **store);

/* Fills field->data on every rank. The dataset must exist with exactly this type and size, be
 * reached through hard links only, be contiguous, without external storage or filters; else
 * BCOP_BAD_DATA naming file and path. Collective. */
bcop_status bcop_store_read(bcop_store *store, const bcop_field *field);

/* Attributes of the root, a group or a dataset, of exactly the type that writing gives them; else
 * BCOP_BAD_DATA naming file and attribute. Text: at most `capacity` bytes with the end; longer is
 * BCOP_BAD_DATA. Collective. */
bcop_status bcop_store_text(bcop_store *store, const char *group, const char *name, char *text,
                            long capacity);
bcop_status bcop_store_text_length(bcop_store *store, const char *group, const char *name,
                                   long *length); /* without the end */
bcop_status bcop_store_long(bcop_store *store, const char *group, const char *name, long *value);
bcop_status bcop_store_real(bcop_store *store, const char *group, const char *name, double *value);

void bcop_store_close(bcop_store *store); /* Local. NULL is allowed */

/* "1.10.8", with its parallel file driver. Local. */
const char *bcop_store_library(void);

#endif
