#include "base/host.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *bcop_host_name(void) {
    static char name[256];
    if (!name[0] && (gethostname(name, sizeof name - 1) != 0 || !name[0]))
        strcpy(name, "unknown");
    return name;
}

const char *bcop_host_job(void) {
    const char *job = getenv("SLURM_JOB_ID");
    return job && *job ? job : NULL;
}

const char *bcop_host_cpu(void) {
    static char model[128];
    if (model[0])
        return model;
    FILE *file = fopen("/proc/cpuinfo", "r");
    char line[512];
    while (file && !model[0] && fgets(line, sizeof line, file))
        if (strncmp(line, "model name", 10) == 0 && strchr(line, ':'))
            sscanf(strchr(line, ':') + 1, " %127[^\n]", model);
    if (file)
        fclose(file);
    if (!model[0])
        strcpy(model, "unknown");
    return model;
}

long bcop_host_memory(void) {
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    long total = 0, kibibytes;
    while (file && fgets(line, sizeof line, file))
        if (sscanf(line, "RssAnon: %ld", &kibibytes) == 1 ||
            sscanf(line, "RssShmem: %ld", &kibibytes) == 1)
            total += 1024 * kibibytes;
    if (file)
        fclose(file);
    return total;
}
