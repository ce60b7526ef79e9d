/* Files in the safetensors format: a header's length (8 bytes, little-endian), a JSON header, and
 * the arrays one after the other (https://github.com/huggingface/safetensors). */
#ifndef BCOP_CKPT_SAFETENSORS_H
#define BCOP_CKPT_SAFETENSORS_H

#include "ckpt/store.h"

/* Writes a new file `path` (must not exist) with the same tables as bcop_store_write: a field
 * "/layers/00-conv/bias" becomes the tensor "layers.00-conv.bias", attributes (of the root alone)
 * become texts of `__metadata__`, reals with 17 digits. Flushes and syncs the file; on failure
 * nothing of it remains. BCOP_CANNOT_CREATE, BCOP_PERMISSION, BCOP_IO, BCOP_BAD_DATA when a text is
 * no UTF-8. Local: in a run of several ranks one calls it. */
bcop_status bcop_safetensors_write(const char *path, int attributes,
                                   const bcop_attribute attribute[], int fields,
                                   const bcop_field field[]);

#endif
