#include "comm/traffic.h"

/* One thread of a rank calls MPI, so these need no lock. */
static bcop_traffic counted;
static bcop_traffic_kind current = BCOP_TRAFFIC_OTHER;

bcop_traffic_kind bcop_traffic_label(bcop_traffic_kind kind) {
    const bcop_traffic_kind before = current;
    current = kind;
    return before;
}

void bcop_traffic_add(long messages, long bytes) {
    counted.messages[current] += messages;
    counted.bytes[current] += messages * bytes;
}

bcop_traffic bcop_traffic_read(void) {
    return counted;
}

const char *bcop_traffic_name(bcop_traffic_kind kind) {
    static const char *const name[BCOP_TRAFFIC_KINDS] = {"other", "gradients", "factors", "record",
                                                         "rows",  "sums",      "blocks"};
    return name[kind];
}
