#include "ckpt/manifest.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

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

static bcop_status take_entries(const char *name, json_t *hashes, bcop_manifest *manifest) {
    if (!json_is_object(hashes))
        return wrong(name, "hashes", "an object");
    manifest->entry = calloc(json_object_size(hashes) + 1, sizeof *manifest->entry);
    if (!manifest->entry)
        return bcop_status_fail(BCOP_INTERNAL, "%s: no memory", name);
    const char *path;
    json_t *item;
    json_object_foreach(hashes, path, item) {
        bcop_manifest_entry *entry = &manifest->entry[manifest->count++];
        if (path[0] != '/' || strlen(path) >= sizeof entry->path)
            return bcop_status_fail(BCOP_BAD_DATA, "%s: hashes: \"%.200s\": not a dataset path",
                                    name, path);
        if (!parse_hash(json_string_value(item), &entry->hash))
            return bcop_status_fail(BCOP_BAD_DATA, "%s: hashes: %s: must be 16 hex digits", name,
                                    path);
        memcpy(entry->path, path, strlen(path) + 1);
    }
    return BCOP_OK;
}

static bcop_status take_manifest(const char *name, const json_t *root, bcop_manifest *manifest) {
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
    BCOP_TRY(take_count(name, root, "step", &manifest->step));
    BCOP_TRY(take_count(name, root, "epoch", &manifest->epoch));
    BCOP_TRY(take_text(name, root, "created", manifest->created, sizeof manifest->created));
    if (!is_stamp(manifest->created))
        return wrong(name, "created", "a date like 2026-11-23T09:26:19Z");
    BCOP_TRY(take_text(name, root, "software", manifest->software, sizeof manifest->software));
    if (!parse_hash(json_string_value(json_object_get(root, "data_fingerprint")),
                    &manifest->data_fingerprint))
        return wrong(name, "data_fingerprint", "16 hex digits");
    const json_t *state = json_object_get(json_object_get(root, "files"), "state.h5");
    if (take_count(name, state, "bytes", &manifest->state_bytes) != BCOP_OK)
        return wrong(name, "files: state.h5: bytes", "an integer that is not negative");
    return take_entries(name, json_object_get(root, "hashes"), manifest);
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
    free(manifest->entry);
    *manifest = (bcop_manifest){0};
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
    if (status == BCOP_OK)
        status = bcop_manifest_parse(name, text, bytes, manifest);
    free(text);
    return status;
}

/* A new reference, NULL when memory is short or a text is not UTF-8. */
static json_t *to_json(const bcop_manifest *m) {
    char hex[17];
    json_t *hashes = json_object();
    for (int i = 0; i < m->count; i++) {
        snprintf(hex, sizeof hex, "%016llx", (unsigned long long)m->entry[i].hash);
        if (json_object_set_new(hashes, m->entry[i].path, json_string(hex))) {
            json_decref(hashes);
            return NULL;
        }
    }
    snprintf(hex, sizeof hex, "%016llx", (unsigned long long)m->data_fingerprint);
    return json_pack("{ss si sI sI ss ss ss s{s{sI}} so}", "format", FORMAT, "version", VERSION,
                     "step", (json_int_t)m->step, "epoch", (json_int_t)m->epoch, "created",
                     m->created, "software", m->software, "data_fingerprint", hex, "files",
                     "state.h5", "bytes", (json_int_t)m->state_bytes, "hashes", hashes);
}

/* What we write we must be able to read. */
static bcop_status check_text(const char *name, const char *text, const bcop_manifest *manifest) {
    bcop_manifest copy;
    if (bcop_manifest_parse(name, text, (long)strlen(text), &copy) != BCOP_OK)
        return bcop_status_fail(BCOP_INTERNAL, "%s", bcop_status_message());
    const int count = copy.count;
    bcop_manifest_free(&copy);
    if (count != manifest->count)
        return bcop_status_fail(BCOP_INTERNAL, "%s: hashes: two of one dataset", name);
    return BCOP_OK;
}

static bcop_status write_all(int file, const char *name, const char *text) {
    size_t left = strlen(text);
    while (left > 0) {
        const ssize_t put = write(file, text, left);
        if (put < 0 && errno == EINTR)
            continue;
        if (put < 0)
            return bcop_status_fail(BCOP_IO, "%s: cannot write: %s", name, strerror(errno));
        text += put;
        left -= (size_t)put;
    }
    if (fsync(file))
        return bcop_status_fail(BCOP_IO, "%s: cannot sync: %s", name, strerror(errno));
    return BCOP_OK;
}

static bcop_status sync_folder(const char *folder) {
    const int file = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (file < 0)
        return bcop_status_errno(BCOP_IO, "%s: cannot open", folder);
    bcop_status status = BCOP_OK;
    if (fsync(file))
        status = bcop_status_fail(BCOP_IO, "%s: cannot sync: %s", folder, strerror(errno));
    close(file);
    return status;
}

/* To the temporary name, then to the final one. */
static bcop_status put_file(const char *folder, const char *name, const char *text) {
    char work[NAME_SIZE + 32];
    snprintf(work, sizeof work, "%s.%ld", name, (long)getpid());
    const int file = open(work, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (file < 0 && (errno == EACCES || errno == EPERM))
        return bcop_status_errno(BCOP_PERMISSION, "%s: cannot create", work);
    if (file < 0)
        return bcop_status_fail(BCOP_CANNOT_CREATE, "%s: cannot create: %s", work, strerror(errno));
    bcop_status status = write_all(file, work, text);
    if (close(file) && status == BCOP_OK)
        status = bcop_status_fail(BCOP_IO, "%s: cannot write: %s", work, strerror(errno));
    if (status == BCOP_OK && rename(work, name))
        status = bcop_status_fail(BCOP_IO, "%s: cannot rename: %s", work, strerror(errno));
    if (status != BCOP_OK)
        unlink(work);
    return status == BCOP_OK ? sync_folder(folder) : status;
}

bcop_status bcop_manifest_write(const char *folder, const bcop_manifest *manifest) {
    char name[NAME_SIZE];
    BCOP_TRY(full_name(name, folder, BCOP_MANIFEST_NAME));
    json_t *root = to_json(manifest);
    char *text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
    bcop_status status =
        text ? check_text(name, text, manifest)
             : bcop_status_fail(BCOP_INTERNAL, "%s: no memory, or a text that is not UTF-8", name);
    json_decref(root);
    if (status == BCOP_OK)
        status = put_file(folder, name, text);
    free(text);
    return status;
}
