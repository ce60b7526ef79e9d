#include "train/machine.h"

#include "base/config.h"
#include "base/option.h"

#include <stddef.h>
#include <string.h>

#define KEY(key, of, value, limit, text)                                                           \
    {                                                                                              \
        .name = #key, .unit = of, .help = text, .offset = offsetof(bcop_machine, key),             \
        .fallback = value, .most = limit                                                           \
    }
const bcop_machine_key bcop_machine_keys[] = {
    KEY(gemm_gflops, "GFLOP/s", 75, 1e6, "products of forward, backward and building"),
    KEY(ortho_gflops, "GFLOP/s", 135, 1e6, "products of updates"),
    KEY(copy_gbs, "GB/s", 6.5, 1e6, "bytes read and written by what is no product"),
    KEY(latency_us, "us", 0.4, 1e6, "of a message"),
    KEY(bandwidth_gbs, "GB/s", 12, 1e6, "bytes sent and received"),
    KEY(overlap, "", 0.5, 1, "part of the last lane's backward that hides messages"),
    {0},
};
#undef KEY

static double *number(bcop_machine *m, const bcop_machine_key *key) {
    return (double *)((char *)m + key->offset);
}

double bcop_machine_value(const bcop_machine *m, const bcop_machine_key *key) {
    return *(const double *)((const char *)m + key->offset);
}

bcop_machine bcop_machine_default(void) {
    bcop_machine m;
    for (const bcop_machine_key *k = bcop_machine_keys; k->name; k++)
        *number(&m, k) = k->fallback;
    return m;
}

static bcop_status unknown(const char *name) {
    const char *names[16] = {0};
    for (int i = 0; bcop_machine_keys[i].name; i++)
        names[i] = bcop_machine_keys[i].name;
    const char *near = bcop_config_suggest(name, names);
    return bcop_status_fail(BCOP_USAGE, "--machine: unknown key '%s'%s%s%s", name,
                            near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

/* One "key=value". */
static bcop_status assign(char *text, bcop_machine *m) {
    char *value = strchr(text, '=');
    if (!value)
        return bcop_status_fail(BCOP_USAGE, "--machine: '%s' is not key=value", text);
    *value++ = 0;
    for (const bcop_machine_key *k = bcop_machine_keys; k->name; k++) {
        if (strcmp(text, k->name) != 0)
            continue;
        double x;
        const bool may_be_zero = k->most <= 1;
        if (!bcop_option_parse_real(value, &x) || x < 0 || (x <= 0 && !may_be_zero) || x > k->most)
            return bcop_status_fail(BCOP_USAGE,
                                    "--machine: %s must be a number %s 0, at most %g "
                                    "(got '%s')",
                                    k->name, may_be_zero ? "from" : "above", k->most, value);
        *number(m, k) = x;
        return BCOP_OK;
    }
    return unknown(text);
}

bcop_status bcop_machine_read(const char *text, bcop_machine *m) {
    while (true) {
        char part[128];
        const size_t length = strcspn(text, ",");
        if (length >= sizeof part)
            return bcop_status_fail(BCOP_USAGE, "--machine: '%.40s...' is not key=value", text);
        memcpy(part, text, length);
        part[length] = 0;
        BCOP_TRY(assign(part, m));
        if (!text[length])
            return BCOP_OK;
        text += length + 1;
    }
}

double bcop_machine_multiply(const bcop_machine *m, double flops) {
    return flops / (m->gemm_gflops * 1e9);
}

double bcop_machine_update(const bcop_machine *m, double flops) {
    return flops / (m->ortho_gflops * 1e9);
}

double bcop_machine_copy(const bcop_machine *m, double bytes) {
    return bytes / (m->copy_gbs * 1e9);
}

double bcop_machine_send(const bcop_machine *m, double messages, double bytes) {
    return messages * m->latency_us * 1e-6 + bytes / (m->bandwidth_gbs * 1e9);
}

double bcop_machine_tree(const bcop_machine *m, int ranks) {
    int levels = 0;
    while (1L << levels < ranks)
        levels++;
    return levels * m->latency_us * 1e-6;
}
