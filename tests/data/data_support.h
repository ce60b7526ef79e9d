/* What the tests of the datasets share: a folder of one's own, files in it, and kinds with options
 * set through their tables. */
#ifndef BCOP_TESTS_DATA_SUPPORT_H
#define BCOP_TESTS_DATA_SUPPORT_H

#include "data/dataset.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

/* Trouble with the test's own means ends the program. */
#define NEED(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

static inline void folder_make(char dir[static 256]) {
    const char *base = getenv("TMPDIR");
    const int length = snprintf(dir, 256, "%s/bcop-data-XXXXXX", base && *base ? base : "/tmp");
    NEED(length > 0 && length < 256 && mkdtemp(dir));
}

static inline void folder_path(const char *dir, const char *name, char path[static 512]) {
    const int length = snprintf(path, 512, "%s/%s", dir, name);
    NEED(length > 0 && length < 512);
}

/* Removes every file in the folder. */
static inline void folder_empty(const char *dir) {
    DIR *list = opendir(dir);
    NEED(list);
    for (struct dirent *entry = readdir(list); entry; entry = readdir(list)) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        char path[512];
        folder_path(dir, entry->d_name, path);
        NEED(remove(path) == 0);
    }
    closedir(list);
}

static inline void folder_remove(const char *dir) {
    folder_empty(dir);
    NEED(rmdir(dir) == 0);
}

static inline void file_put(const char *dir, const char *name, const void *data, size_t size) {
    char path[512];
    folder_path(dir, name, path);
    FILE *file = fopen(path, "wb");
    NEED(file && fwrite(data, 1, size, file) == size && fclose(file) == 0);
}

/* Appends a gzip member with the data to the file. */
static inline void file_put_gz(const char *dir, const char *name, const void *data, size_t size) {
    char path[512];
    folder_path(dir, name, path);
    gzFile file = gzopen(path, "ab");
    NEED(file && gzwrite(file, data, (unsigned)size) == (int)size && gzclose(file) == Z_OK);
}

/* The whole file, malloc'ed. */
static inline unsigned char *file_get(const char *dir, const char *name, size_t *size) {
    char path[512];
    folder_path(dir, name, path);
    FILE *file = fopen(path, "rb");
    NEED(file && fseek(file, 0, SEEK_END) == 0);
    *size = (size_t)ftell(file);
    rewind(file);
    unsigned char *data = malloc(*size + 1);
    NEED(data && fread(data, 1, *size, file) == *size && fclose(file) == 0);
    return data;
}

static inline int kind_index(const char *name) {
    int k = 0;
    while (bcop_set_kinds[k] && strcmp(bcop_set_kinds[k]->name, name) != 0)
        k++;
    NEED(bcop_set_kinds[k]);
    return k;
}

/* A zeroed options struct of the kind, to be freed. */
static inline void *kind_options(const char *kind) {
    void *options = calloc(1, bcop_set_kinds[kind_index(kind)]->options_size);
    NEED(options);
    return options;
}

static inline unsigned char *kind_value(const char *kind, void *options, const char *key,
                                        bcop_option_type type) {
    const bcop_option *option = bcop_set_kinds[kind_index(kind)]->options;
    while (option->key && strcmp(option->key, key) != 0)
        option++;
    NEED(option->key && option->type == type);
    return (unsigned char *)options + option->offset;
}

static inline void kind_set_text(const char *kind, void *options, const char *key,
                                 const char *text) {
    NEED(strlen(text) < BCOP_TEXT_MAX);
    strcpy((char *)kind_value(kind, options, key, BCOP_OPTION_TEXT), text);
}

static inline void kind_set_int(const char *kind, void *options, const char *key, int value) {
    memcpy(kind_value(kind, options, key, BCOP_OPTION_INT), &value, sizeof value);
}

static inline void kind_set_long(const char *kind, void *options, const char *key, long value) {
    memcpy(kind_value(kind, options, key, BCOP_OPTION_LONG), &value, sizeof value);
}

static inline void kind_set_real(const char *kind, void *options, const char *key, double value) {
    memcpy(kind_value(kind, options, key, BCOP_OPTION_REAL), &value, sizeof value);
}

/* A kind with the one option `dir`. */
static inline bcop_status open_dir(const char *kind, const char *dir, bool test,
                                   bcop_images *images) {
    void *options = kind_options(kind);
    kind_set_text(kind, options, "dir", dir);
    const bcop_status status = bcop_set_kinds[kind_index(kind)]->open(options, test, images);
    free(options);
    return status;
}

/* Options of a small synthetic set, to be freed. */
static inline void *synthetic_make(int classes, bcop_shape shape, long count, long seed,
                                   double noise) {
    void *options = kind_options("synthetic");
    kind_set_int("synthetic", options, "classes", classes);
    kind_set_int("synthetic", options, "height", shape.height);
    kind_set_int("synthetic", options, "width", shape.width);
    kind_set_int("synthetic", options, "channels", shape.channels);
    kind_set_long("synthetic", options, "count", count);
    kind_set_long("synthetic", options, "test_count", count / 2);
    kind_set_long("synthetic", options, "seed", seed);
    kind_set_real("synthetic", options, "noise", noise);
    return options;
}

#endif
