#include "ckpt/safetensors.h"

#include "ckpt/h5.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "arrays are written as they are");

static json_t *text_of(const bcop_attribute *a) {
    if (a->type == BCOP_ATTRIBUTE_TEXT)
        return json_string(a->text);
    return a->type == BCOP_ATTRIBUTE_LONG ? json_sprintf("%ld", a->integer)
                                          : json_sprintf("%.17g", a->real);
}

static json_t *entry_of(const bcop_field *field, long begin) {
    static const char *const types[] = {
        [BCOP_FIELD_FLOAT] = "F32", [BCOP_FIELD_DOUBLE] = "F64", [BCOP_FIELD_LONG] = "I64"};
    json_t *shape = json_array();
    for (int d = 0; d < field->dimensions; d++)
        json_array_append_new(shape, json_integer(field->size[d]));
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", types[field->type], "shape", shape,
                     "data_offsets", (json_int_t)begin, (json_int_t)(begin + bcop_h5_bytes(field)));
}

/* The header, to be freed; NULL when something in it is no UTF-8 or there is no memory. */
static char *make_header(int attributes, const bcop_attribute attribute[], int fields,
                         const bcop_field field[]) {
    json_t *header = json_object(), *about = json_object();
    int failed = 0;
    for (int i = 0; i < attributes; i++)
        failed |= json_object_set_new(about, attribute[i].name, text_of(&attribute[i]));
    failed |= json_object_set_new(header, "__metadata__", about);
    long at = 0;
    for (int i = 0; i < fields; i++) {
        char name[sizeof field[i].path];
        snprintf(name, sizeof name, "%s", field[i].path + 1);
        for (char *slash = strchr(name, '/'); slash; slash = strchr(slash, '/'))
            *slash = '.';
        failed |= json_object_set_new(header, name, entry_of(&field[i], at));
        at += bcop_h5_bytes(&field[i]);
    }
    char *text = failed ? NULL : json_dumps(header, JSON_COMPACT);
    json_decref(header);
    return text;
}

/* The header is filled up with spaces, so that the arrays begin at a multiple of 8 bytes. */
static bool write_all(FILE *out, const char *header, int fields, const bcop_field field[]) {
    const size_t length = strlen(header), padding = (8 - length % 8) % 8;
    const uint64_t stated = length + padding;
    bool ok = fwrite(&stated, sizeof stated, 1, out) == 1 &&
              fwrite(header, 1, length, out) == length &&
              fwrite("        ", 1, padding, out) == padding;
    for (int i = 0; ok && i < fields; i++) {
        const size_t bytes = (size_t)bcop_h5_bytes(&field[i]);
        ok = fwrite(field[i].data, 1, bytes, out) == bytes;
    }
    return ok && fflush(out) == 0 && fsync(fileno(out)) == 0;
}

bcop_status bcop_safetensors_write(const char *path, int attributes,
                                   const bcop_attribute attribute[], int fields,
                                   const bcop_field field[]) {
    char *header = make_header(attributes, attribute, fields, field);
    if (!header)
        return bcop_status_fail(BCOP_BAD_DATA, "%s: a text for its header is no UTF-8", path);
    const int file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    FILE *out = file < 0 ? NULL : fdopen(file, "wb");
    bcop_status status = BCOP_OK;
    if (!out)
        status = bcop_status_create(path);
    else if (!write_all(out, header, fields, field))
        status = bcop_status_fail(BCOP_IO, "%s: cannot write: %s", path, strerror(errno));
    free(header);
    if (out && fclose(out) != 0 && status == BCOP_OK)
        status = bcop_status_fail(BCOP_IO, "%s: cannot write: %s", path, strerror(errno));
    if (out && status != BCOP_OK)
        unlink(path);
    return status;
}
