/* A whole file as read-only memory: mapped, or unpacked from gzip.
 *
 * A mapped file is not copied, so processes of one node share its pages; it must not be cut short
 * while it is open. */
#ifndef BCOP_DATA_MAPPED_H
#define BCOP_DATA_MAPPED_H

#include "base/option.h"

enum { BCOP_MAPPED_PATH = BCOP_TEXT_MAX + 64 }; /* a folder from an option, and a file name */

typedef struct bcop_mapped {
    const unsigned char *data;   /* [size]; NULL when nothing is open */
    long size;                   /* > 0 */
    bool unpacked;               /* data is malloc'ed, not mapped */
    char path[BCOP_MAPPED_PATH]; /* for messages */
} bcop_mapped;

/* Maps the file `name` in the folder `dir`. BCOP_NO_INPUT when there is none, BCOP_BAD_DATA when it
 * is empty or no regular file. On failure *mapped is all zeros. Local. */
bcop_status bcop_mapped_open(const char *dir, const char *name, bcop_mapped *mapped);

/* Unpacks the gzip file `name`.gz in `dir`; several members are joined as gunzip does, but bytes
 * that are no member are an error. Same errors as bcop_mapped_open; also BCOP_BAD_DATA when it is
 * cut short or damaged and BCOP_INTERNAL when memory runs out. Local. */
bcop_status bcop_mapped_unpack(const char *dir, const char *name, bcop_mapped *mapped);

void bcop_mapped_close(bcop_mapped *mapped); /* all zeros is allowed */

#endif
