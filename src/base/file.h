/* Files that must be whole on the disk, or not be there. All functions are Local. */
#ifndef BCOP_BASE_FILE_H
#define BCOP_BASE_FILE_H

#include "base/status.h"

#include <stddef.h>

/* Writes `folder`/`name`: a temporary name in the same folder, fsync, rename, fsync of the folder;
 * so the old or the new file is there at any moment, never half of one. On failure the temporary is
 * removed. BCOP_CANNOT_CREATE, BCOP_PERMISSION, BCOP_IO. */
bcop_status bcop_file_write(const char *folder, const char *name, const char *text, size_t bytes);

/* Syncs a file, or a folder's entries, to the disk. BCOP_IO. */
bcop_status bcop_file_sync(const char *path);

/* Writes all bytes to a file descriptor at its position, whatever pieces the system takes. On
 * failure errno says why, and *done (unless NULL) how many were written. Returns 0 or -1. */
int bcop_file_put(int file, const void *data, size_t bytes, size_t *done);

#endif
