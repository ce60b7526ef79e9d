#include "app/settings.h"

#include <stdio.h>
#include <stdlib.h>

/* Reads a whole file of at most 1 MiB + 1 (the parser refuses more); the caller frees *text. */
static bcop_status read_file(const char *path, char **text, long *length) {
    enum { LIMIT = (1 << 20) + 1 };
    FILE *file = fopen(path, "rb");
    if (!file)
        return bcop_status_errno(BCOP_NO_INPUT, "%s", path);
    *text = malloc(LIMIT);
    if (!*text) {
        fclose(file);
        return bcop_status_fail(BCOP_INTERNAL, "out of memory for %s", path);
    }
    *length = (long)fread(*text, 1, LIMIT, file);
    const bool bad = ferror(file);
    fclose(file);
    if (bad) {
        free(*text);
        *text = NULL;
        return bcop_status_fail(BCOP_IO, "%s: cannot be read", path);
    }
    return BCOP_OK;
}

bcop_status bcop_settings_read(const bcop_comm *comm, const char *path, const char *const set[],
                               bcop_experiment *e) {
    char *text = NULL;
    long length = 0;
    BCOP_TRY(bcop_comm_agree(comm, comm->rank == 0 ? read_file(path, &text, &length) : BCOP_OK));
    bcop_comm_broadcast(comm, &length, sizeof length, 0);
    bcop_status status = BCOP_OK;
    if (comm->rank != 0 && !(text = malloc((size_t)length + 1)))
        status = bcop_status_fail(BCOP_INTERNAL, "out of memory for %s", path);
    status = bcop_comm_agree(comm, status);
    if (status != BCOP_OK) {
        free(text);
        return status;
    }
    bcop_comm_broadcast(comm, text, length, 0);
    bcop_config *config = NULL;
    status = bcop_config_parse(text, (size_t)length, path, &config);
    free(text);
    for (int i = 0; status == BCOP_OK && set[i]; i++)
        status = bcop_config_set(config, set[i]);
    if (status == BCOP_OK)
        status = bcop_experiment_read(config, e);
    else
        bcop_config_free(config);
    const bcop_status agreed = bcop_comm_agree(comm, status);
    if (agreed != BCOP_OK && status == BCOP_OK)
        bcop_experiment_free(e);
    return agreed;
}
