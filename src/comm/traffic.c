#include "comm/traffic.h"

#include "base/spans.h"

/* One thread of a rank calls MPI, so these need no lock. */
static bcop_traffic counted;
static bcop_traffic_kind current = BCOP_TRAFFIC_OTHER;
static long unreported; /* bytes since the last span */

bcop_traffic_kind bcop_traffic_label(bcop_traffic_kind kind) {
    const bcop_traffic_kind before = current;
    current = kind;
    return before;
}

void bcop_traffic_add(long messages, long bytes) {
    counted.messages[current] += messages;
    counted.bytes[current] += messages * bytes;
    unreported += messages * bytes;
}

double bcop_traffic_begin(void) {
    return bcop_spans_begin();
}

void bcop_traffic_end(double begin) {
    bcop_spans_end("mpi", bcop_traffic_name(current), begin, (double)unreported);
    unreported = 0;
}

bcop_traffic bcop_traffic_read(void) {
    return counted;
}

static void tell(const bcop_traffic_visitor *v, bcop_traffic_message m) {
    m.kind = v->kind;
    m.block = v->block;
    m.count *= v->times > 0 ? v->times : 1;
    if (m.count > 0)
        v->visit(v->context, &m);
}

void bcop_traffic_tell(const bcop_traffic_visitor *v, bcop_traffic_way way, int to, long bytes) {
    tell(v, (bcop_traffic_message){.way = way, .to = v->base + to, .count = 1, .bytes = bytes});
}

void bcop_traffic_tell_group(const bcop_traffic_visitor *v, bcop_traffic_way way, int group,
                             long bytes) {
    const long count = way == BCOP_TRAFFIC_GATHER ? group - 1 : 1;
    tell(
        v,
        (bcop_traffic_message){
            .way = way, .to = -1, .base = v->base, .group = group, .count = count, .bytes = bytes});
}

static void add_message(void *context, const bcop_traffic_message *m) {
    bcop_traffic *t = context;
    t->messages[m->kind] += m->count;
    t->bytes[m->kind] += m->count * m->bytes;
}

bcop_traffic_visitor bcop_traffic_counter(bcop_traffic *traffic) {
    return (bcop_traffic_visitor){.visit = add_message, .context = traffic};
}

const char *bcop_traffic_name(bcop_traffic_kind kind) {
    static const char *const name[BCOP_TRAFFIC_KINDS] = {"other", "gradients", "factors", "record",
                                                         "rows",  "sums",      "blocks"};
    return name[kind];
}
