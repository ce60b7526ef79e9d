#include "app/provenance.h"

#include "base/log.h"

#include <stdio.h>

json_t *bcop_provenance_json(const bcop_snapshot *s) {
    const bcop_manifest_origin *o = &s->manifest.origin;
    char data[17];
    if (!s->has_manifest)
        return json_null();
    snprintf(data, sizeof data, "%016llx", (unsigned long long)s->manifest.data_fingerprint);
    return json_pack("{s:s, s:s?, s:i, s:i, s:s, s:s, s:s, s:s, s:s}", "host", o->host, "job",
                     o->job[0] ? o->job : NULL, "ranks", o->ranks, "threads", o->threads, "cpu",
                     o->cpu, "blas", o->blas, "mpi", o->mpi, "hdf5", o->hdf5, "data_fingerprint",
                     data);
}

/* The hash of block `block` of all, as the manifest writes it. */
static const char *hash_text(const bcop_seal *seal, long block) {
    static char text[17];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)seal->hash[block]);
    return text;
}

json_t *bcop_provenance_hashes(const bcop_snapshot *s) {
    const bcop_seal *seal = &s->manifest.seal;
    json_t *hashes = json_object();
    for (int i = 0; i < seal->count; i++) {
        const bcop_seal_array *a = &seal->array[i];
        json_t *list = json_array();
        for (long b = 0; b < bcop_seal_blocks(a->bytes); b++)
            json_array_append_new(list, json_string(hash_text(seal, a->first + b)));
        json_object_set_new(hashes, a->path, list);
    }
    return hashes;
}

static void print_array(const bcop_seal *seal, const bcop_seal_array *a) {
    const long blocks = bcop_seal_blocks(a->bytes);
    char more[40] = "";
    if (blocks > 1)
        snprintf(more, sizeof more, " and %ld more blocks", blocks - 1);
    bcop_log_info("%-40s %12ld bytes  %s%s", a->path, a->bytes,
                  blocks ? hash_text(seal, a->first) : "-", more);
}

void bcop_provenance_print(const bcop_snapshot *s) {
    const bcop_manifest *m = &s->manifest;
    const bcop_manifest_origin *o = &m->origin;
    if (!s->has_manifest) {
        bcop_log_info("no manifest beside it: nothing to verify it by");
        return;
    }
    bcop_log_info("written on %s%s%s by %d ranks of %d threads, from data %016llx", o->host,
                  o->job[0] ? ", job " : "", o->job, o->ranks, o->threads,
                  (unsigned long long)m->data_fingerprint);
    bcop_log_info("CPU %s; BLAS %s; %s; HDF5 %s", o->cpu, o->blas, o->mpi, o->hdf5);
    for (int i = 0; i < m->seal.count; i++)
        print_array(&m->seal, &m->seal.array[i]);
    bcop_log_info("hashes agree with the manifest, %ld bytes", m->seal.bytes);
}
