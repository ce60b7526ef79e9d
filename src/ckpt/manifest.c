#include "ckpt/manifest.h"

#include "base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define FORMAT "bcop-checkpoint"
enum { VERSION = 1, SIZE_LIMIT = 4 << 20, NAME_SIZE = 4096 };

/* ---- Fields, each checked on the way in; the fault names what is wrong ---- */

static bcop_status wrong(const char *name, const char *field, const char *expected) {
    return bcop_status_fail(BCOP_BAD_DATA, "%s: %s: must be %s", name, field, expected);
}

static bcop_status take_count(const char *name, const json_t *object, const char *field,
                              long *value) {
    const json_t *item = json_object_get(object, field);
    if (!json_is_integer(item) || json_integer_value(item) < 0)
        return wrong(name, field, "an integer that is not negative");
    *value = (long)json_integer_value(item);
    return BCOP_OK;
}

static bcop_status take_text(const char *name, const json_t *object, const char *field, char *value,
                             size_t capacity) {
    const char *text = json_string_value(json_object_get(object, field));
    if (!text || strlen(text) >= capacity)
        return bcop_status_fail(BCOP_BAD_DATA, "%s: %s: must be a text shorter than %zu bytes",
                                name, field, capacity);
    memcpy(value, text, strlen(text) + 1);
    return BCOP_OK;
}

/* Exactly 16 lower-case hexadecimal digits. */
static bool parse_hash(const char *text, uint64_t *hash) {
    if (!text || strlen(text) != 16 || strspn(text, "0123456789abcdef") != 16)
        return false;
    *hash = strtoull(text, NULL, 16);
    return true;
}

/* "2026-11-23T09:26:19Z" */
static bool is_stamp(const char *text) {
    static const char form[] = "dddd-dd-ddTdd:dd:ddZ";
    if (strlen(text) != sizeof form - 1)
        return false;
    for (size_t i = 0; form[i]; i++)
        if (form[i] == 'd' ? text[i] < '0' || text[i] > '9' : text[i] != form[i])
            return false;
    return true;
}

static bcop_status take_hash(const char *name, const json_t *object, const char *field,
                             uint64_t *hash) {
    if (!parse_hash(json_string_value(json_object_get(object, field)), hash))
        return wrong(name, field, "16 hex digits");
    return BCOP_OK;
}

static bcop_status take_int(const char *name, const json_t *object, const char *field, int *value) {
    long found = 0;
    BCOP_TRY(take_count(name, object, field, &found));
    if (found > 1 << 30)
        return wrong(name, field, "a smaller integer");
    *value = (int)found;
    return BCOP_OK;
}

static bcop_status take_origin(const char *name, const json_t *object,
                               bcop_manifest_origin *origin) {
    if (!json_is_object(object))
        return wrong(name, "provenance", "an object");
    if (!json_is_null(json_object_get(object, "job")))
        BCOP_TRY(take_text(name, object, "job", origin->job, sizeof origin->job));
    BCOP_TRY(take_text(name, object, "host", origin->host, sizeof origin->host));
    BCOP_TRY(take_text(name, object, "cpu", origin->cpu, sizeof origin->cpu));
    BCOP_TRY(take_text(name, object, "blas", origin->blas, sizeof origin->blas));
    BCOP_TRY(take_text(name, object, "mpi", origin->mpi, sizeof origin->mpi));
    BCOP_TRY(take_text(name, object, "hdf5", origin->hdf5, sizeof origin->hdf5));
    BCOP_TRY(take_int(name, object, "ranks", &origin->ranks));
    return take_int(name, object, "threads", &origin->threads);
}

/* Where an array is: [offset, bytes]. */
static bcop_status take_place(const char *name, const json_t *place, long file_bytes,
                              bcop_seal_array *array) {
    const json_t *offset = json_array_get(place, 0), *bytes = json_array_get(place, 1);
    if (json_array_size(place) != 2 || !json_is_integer(offset) || !json_is_integer(bytes))
        return bcop_status_fail(BCOP_BAD_DATA, "%s: places: %s: must be [offset, bytes]", name,
                                array->path);
    array->offset = (long)json_integer_value(offset);
    array->bytes = (long)json_integer_value(bytes);
    if (array->offset < 0 || array->bytes < 0 || array->bytes > file_bytes ||
        array->offset > file_bytes - array->bytes)
        return bcop_status_fail(BCOP_BAD_DATA, "%s: places: %s: is not within the file", name,
                                array->path);
    return BCOP_OK;
}

/* The names, places and numbers of blocks of all arrays. */
static bcop_status take_arrays(const char *name, json_t *hashes, const json_t *places,
                               bcop_seal *seal) {
    const char *path;
    json_t *list;
    int i = 0;
    json_object_foreach(hashes, path, list) {
        bcop_seal_array *array = &seal->array[i++];
        if (path[0] != '/' || strlen(path) >= sizeof array->path)
            return bcop_status_fail(BCOP_BAD_DATA, "%s: hashes: \"%.200s\": not a dataset path",
                                    name, path);
        memcpy(array->path, path, strlen(path) + 1);
        BCOP_TRY(take_place(name, json_object_get(places, path), seal->bytes, array));
        if (!json_is_array(list) || (long)json_array_size(list) != bcop_seal_blocks(array->bytes))
            return bcop_status_fail(BCOP_BAD_DATA, "%s: hashes: %s: must be a list of %ld", name,
                                    path, bcop_seal_blocks(array->bytes));
    }
    return BCOP_OK;
}

static bcop_status take_hashes(const char *name, json_t *hashes, bcop_seal *seal) {
    const char *path;
    json_t *list;
    long at = 0;
    json_object_foreach(hashes, path, list) for (size_t b = 0; b < json_array_size(list); b++) if (
        !parse_hash(
            json_string_value(json_array_get(list, b)),
            &seal->hash[at++])) return bcop_status_fail(BCOP_BAD_DATA,
                                                        "%s: hashes: %s: must be 16 hex digits",
                                                        name, path);
    return BCOP_OK;
}

static bcop_status take_seal(const char *name, const json_t *root, bcop_seal *seal) {
    json_t *hashes = json_object_get(root, "hashes");
    const json_t *places = json_object_get(root, "places");
    const json_t *state = json_object_get(json_object_get(root, "files"), "state.h5");
    long bytes = 0, block = 0;
    uint64_t structure = 0;
    if (take_count(name, state, "bytes", &bytes) != BCOP_OK)
        return wrong(name, "files: state.h5: bytes", "an integer that is not negative");
    if (take_hash(name, state, "structure", &structure) != BCOP_OK)
        return wrong(name, "files: state.h5: structure", "16 hex digits");
    BCOP_TRY(take_count(name, root, "block_bytes", &block));
    if (block != BCOP_SEAL_BLOCK)
        return wrong(name, "block_bytes", "1048576");
    if (!json_is_object(hashes))
        return wrong(name, "hashes", "an object");
    if (!json_is_object(places) || json_object_size(places) != json_object_size(hashes))
        return wrong(name, "places", "an object with the keys of hashes");
    BCOP_TRY(bcop_seal_create((int)json_object_size(hashes), seal));
    seal->bytes = bytes;
    seal->structure = structure;
    BCOP_TRY(take_arrays(name, hashes, places, seal));
    BCOP_TRY(bcop_seal_number(seal));
    return take_hashes(name, hashes, seal);
}

static bcop_status take_head(const char *name, const json_t *root) {
    char format[sizeof FORMAT];
    long version = 0;
    if (!json_is_object(root))
        return bcop_status_fail(BCOP_BAD_DATA, "%s: must be a JSON object", name);
    if (take_text(name, root, "format", format, sizeof format) != BCOP_OK ||
        strcmp(format, FORMAT) != 0)
        return wrong(name, "format", "\"" FORMAT "\"");
    BCOP_TRY(take_count(name, root, "version", &version));
    if (version != VERSION)
        return bcop_status_fail(BCOP_BAD_DATA, "%s: version: %ld: this program reads %d", name,
                                version, VERSION);
    return BCOP_OK;
}

static bcop_status take_manifest(const char *name, const json_t *root, bcop_manifest *manifest) {
    BCOP_TRY(take_head(name, root));
    BCOP_TRY(take_count(name, root, "step", &manifest->step));
    BCOP_TRY(take_count(name, root, "epoch", &manifest->epoch));
    BCOP_TRY(take_text(name, root, "created", manifest->created, sizeof manifest->created));
    if (!is_stamp(manifest->created))
        return wrong(name, "created", "a date like 2026-11-23T09:26:19Z");
    BCOP_TRY(take_text(name, root, "software", manifest->software, sizeof manifest->software));
    BCOP_TRY(take_hash(name, root, "config", &manifest->config));
    BCOP_TRY(take_hash(name, root, "data_fingerprint", &manifest->data_fingerprint));
    BCOP_TRY(take_origin(name, json_object_get(root, "provenance"), &manifest->origin));
    return take_seal(name, root, &manifest->seal);
}

bcop_status bcop_manifest_parse(const char *name, const char *text, long bytes,
                                bcop_manifest *manifest) {
    *manifest = (bcop_manifest){0};
    if (bytes > SIZE_LIMIT)
        return bcop_status_fail(BCOP_BAD_DATA, "%s: larger than %d bytes", name, SIZE_LIMIT);
    json_error_t fault;
    json_t *root = json_loadb(text, (size_t)bytes, JSON_REJECT_DUPLICATES, &fault);
    if (!root)
        return bcop_status_fail(BCOP_BAD_DATA, "%s:%d:%d: %s", name, fault.line, fault.column,
                                fault.text);
    const bcop_status status = take_manifest(name, root, manifest);
    json_decref(root);
    if (status != BCOP_OK)
        bcop_manifest_free(manifest);
    return status;
}

void bcop_manifest_free(bcop_manifest *manifest) {
    bcop_seal_free(&manifest->seal);
    *manifest = (bcop_manifest){0};
}

/* ---- The checksum ---- */

#define TAIL_BEGIN ",\n \"checksum\": \""
#define TAIL_END "\"\n}\n"
enum { TAIL = sizeof TAIL_BEGIN - 1 + 16 + sizeof TAIL_END - 1 };

/* TAIL bytes with the end. */
static void write_tail(const char *text, long bytes, char tail[TAIL + 1]) {
    snprintf(tail, TAIL + 1, TAIL_BEGIN "%016llx" TAIL_END,
             (unsigned long long)XXH3_64bits(text, (size_t)bytes));
}

bcop_status bcop_manifest_checksum(const char *name, const char *text, long bytes) {
    char tail[TAIL + 1];
    if (bytes >= TAIL) {
        write_tail(text, bytes - TAIL, tail);
        if (memcmp(text + bytes - TAIL, tail, TAIL) == 0)
            return BCOP_OK;
    }
    return bcop_status_fail(BCOP_BAD_DATA, "%s: does not end with its own checksum", name);
}

/* ---- Files ---- */

static bcop_status full_name(char name[NAME_SIZE], const char *folder, const char *file) {
    if (snprintf(name, NAME_SIZE, "%s/%s", folder, file) >= NAME_SIZE)
        return bcop_status_fail(BCOP_NO_INPUT, "%s: name too long", folder);
    return BCOP_OK;
}

/* Reads at most one byte more than the limit, so that a longer file shows. */
static bcop_status read_all(int file, const char *name, char *text, long *bytes) {
    struct stat about;
    if (fstat(file, &about) || !S_ISREG(about.st_mode))
        return bcop_status_fail(BCOP_BAD_DATA, "%s: not a file", name);
    *bytes = 0;
    while (*bytes <= SIZE_LIMIT) {
        const ssize_t got = read(file, text + *bytes, (size_t)(SIZE_LIMIT + 1 - *bytes));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return bcop_status_fail(BCOP_IO, "%s: cannot read: %s", name, strerror(errno));
        if (got == 0)
            break;
        *bytes += got;
    }
    return BCOP_OK;
}

bcop_status bcop_manifest_read(const char *folder, bcop_manifest *manifest) {
    char name[NAME_SIZE];
    *manifest = (bcop_manifest){0};
    BCOP_TRY(full_name(name, folder, BCOP_MANIFEST_NAME));
    const int file = open(name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0)
        return bcop_status_errno(BCOP_IO, "%s: cannot open", name);
    char *text = malloc(SIZE_LIMIT + 1);
    long bytes = 0;
    bcop_status status =
        text ? read_all(file, name, text, &bytes)
             : bcop_status_fail(BCOP_INTERNAL, "%s: no memory for %d bytes", name, SIZE_LIMIT + 1);
    close(file);
    if (status == BCOP_OK && bytes <= SIZE_LIMIT)
        status = bcop_manifest_checksum(name, text, bytes);
    if (status == BCOP_OK)
        status = bcop_manifest_parse(name, text, bytes, manifest);
    free(text);
    return status;
}

/* ---- Writing ---- */

static json_t *hex_json(uint64_t hash) {
    char hex[17];
    snprintf(hex, sizeof hex, "%016llx", (unsigned long long)hash);
    return json_string(hex);
}

/* Both take the references they are given; false when memory is short or a text is not UTF-8. */
static bool fill_arrays(const bcop_seal *seal, json_t *hashes, json_t *places) {
    for (int i = 0; i < seal->count; i++) {
        const bcop_seal_array *a = &seal->array[i];
        json_t *list = json_array();
        for (long b = 0; b < bcop_seal_blocks(a->bytes); b++)
            json_array_append_new(list, hex_json(seal->hash[a->first + b]));
        if (json_object_set_new(hashes, a->path, list) != 0 ||
            json_object_set_new(places, a->path,
                                json_pack("[I, I]", (json_int_t)a->offset, (json_int_t)a->bytes)) !=
                0)
            return false;
    }
    return true;
}

static json_t *origin_json(const bcop_manifest_origin *o) {
    return json_pack("{s:s, s:s?, s:i, s:i, s:s, s:s, s:s, s:s}", "host", o->host, "job",
                     o->job[0] ? o->job : NULL, "ranks", o->ranks, "threads", o->threads, "cpu",
                     o->cpu, "blas", o->blas, "mpi", o->mpi, "hdf5", o->hdf5);
}

/* A new reference, NULL when memory is short or a text is not UTF-8. */
static json_t *to_json(const bcop_manifest *m) {
    json_t *hashes = json_object(), *places = json_object();
    if (!fill_arrays(&m->seal, hashes, places)) {
        json_decref(hashes);
        json_decref(places);
        return NULL;
    }
    return json_pack("{ss si sI sI ss ss so so so s{s{sI so}} si so so}", "format", FORMAT,
                     "version", VERSION, "step", (json_int_t)m->step, "epoch", (json_int_t)m->epoch,
                     "created", m->created, "software", m->software, "config", hex_json(m->config),
                     "data_fingerprint", hex_json(m->data_fingerprint), "provenance",
                     origin_json(&m->origin), "files", "state.h5", "bytes",
                     (json_int_t)m->seal.bytes, "structure", hex_json(m->seal.structure),
                     "block_bytes", BCOP_SEAL_BLOCK, "hashes", hashes, "places", places);
}

/* The whole text, which the caller frees: the object, its last brace replaced by the tail. */
static char *to_text(const bcop_manifest *m) {
    json_t *root = to_json(m);
    char *body = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
    json_decref(root);
    const size_t length = body ? strlen(body) : 0;
    char *text = length > 2 ? realloc(body, length + TAIL + 1) : NULL;
    if (!text) {
        free(body);
        return NULL;
    }
    write_tail(text, (long)length - 2, text + length - 2); /* without "\n}" */
    return text;
}

/* What we write we must be able to read. */
static bcop_status check_text(const char *name, const char *text, const bcop_manifest *manifest) {
    bcop_manifest copy;
    if (bcop_manifest_parse(name, text, (long)strlen(text), &copy) != BCOP_OK)
        return bcop_status_fail(BCOP_INTERNAL, "%s", bcop_status_message());
    const int count = copy.seal.count;
    bcop_manifest_free(&copy);
    if (count != manifest->seal.count)
        return bcop_status_fail(BCOP_INTERNAL, "%s: hashes: two of one dataset", name);
    return BCOP_OK;
}

bcop_status bcop_manifest_write(const char *folder, const bcop_manifest *manifest) {
    char name[NAME_SIZE];
    BCOP_TRY(full_name(name, folder, BCOP_MANIFEST_NAME));
    char *text = to_text(manifest);
    bcop_status status =
        text ? check_text(name, text, manifest)
             : bcop_status_fail(BCOP_INTERNAL, "%s: no memory, or a text that is not UTF-8", name);
    if (status == BCOP_OK)
        status = bcop_file_write(folder, BCOP_MANIFEST_NAME, text, strlen(text));
    free(text);
    return status;
}
