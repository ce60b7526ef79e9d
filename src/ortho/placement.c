#include "ortho/placement.h"

#include "ortho/rows.h"

#include <math.h>

const char *bcop_placement_name(bcop_placement placement) {
    static const char *const name[] = {"auto", "replicated", "owned", "shared", "grid"};
    return name[placement];
}

/* Below this an update takes less time than the messages that sharing it would need: 20 us at 50
   GFLOP/s. */
static const double small_cost = 1e6;

double bcop_placement_part(int rows, int cols, int holders) {
    const double n = cols, part = (double)rows / holders;
    return 7 * part * n * n + 2 * n * n * n;
}

double bcop_placement_cost(int rows, int cols) {
    return bcop_placement_part(rows, cols, 1);
}

static double cost_of(const bcop_parameter *p) {
    return p->orthonormal ? bcop_placement_cost(p->rows, p->cols) : 0;
}

/* The first parameter after the bundle that begins at i. */
static int bundle_end(int count, bcop_parameter *const parameter[], int i) {
    int end = i + 1;
    while (end < count && parameter[end]->bundle == parameter[i]->bundle)
        end++;
    return end;
}

/* What the whole blocks of parameters i .. end-1 cost. */
static double owned_cost(bcop_parameter *const parameter[], const bcop_placement_choice choice[],
                         int i, int end) {
    double cost = 0;
    for (; i < end; i++)
        cost += choice[i].placement == BCOP_PLACEMENT_OWNED ? cost_of(parameter[i]) : 0;
    return cost;
}

/* Whether the parameters of a bundle are to be moved from rank to rank at all. */
static bool is_movable(const bcop_placement_rule *rule, bcop_parameter *const parameter[], int i,
                       int end) {
    double cost = 0;
    long blocks = 0;
    for (; i < end; i++) {
        cost += cost_of(parameter[i]);
        blocks += parameter[i]->orthonormal ? bcop_parameter_size(parameter[i]) : 0;
    }
    if (blocks == 0 || rule->wanted == BCOP_PLACEMENT_REPLICATED)
        return false;
    return rule->wanted != BCOP_PLACEMENT_AUTO || cost >= small_cost;
}

static bool goes_on_grid(const bcop_placement_rule *rule, const bcop_parameter *p) {
    if (!p->orthonormal || p->cols == 0)
        return false;
    return rule->wanted == BCOP_PLACEMENT_GRID ||
           (rule->wanted == BCOP_PLACEMENT_AUTO && rule->grid_above > 0 &&
            cost_of(p) > rule->grid_above);
}

static bool is_divided(bcop_placement placement) {
    return placement == BCOP_PLACEMENT_SHARED || placement == BCOP_PLACEMENT_GRID;
}

int bcop_placement_holders(int ranks, int rows) {
    const int panels = bcop_rows_panels(rows);
    return panels < ranks ? panels : ranks;
}

/* Spreads the blocks that are SHARED or on the GRID, the costliest first, each over the group of
   consecutive ranks that has the least to do. */
static void spread(int ranks, int count, bcop_parameter *const parameter[],
                   bcop_placement_choice choice[], double load[]) {
    for (;;) {
        int costliest = -1;
        for (int i = 0; i < count; i++)
            if (is_divided(choice[i].placement) && choice[i].first < 0 &&
                (costliest < 0 || cost_of(parameter[i]) > cost_of(parameter[costliest])))
                costliest = i;
        if (costliest < 0)
            return;
        const bcop_parameter *p = parameter[costliest];
        const bool grid = choice[costliest].placement == BCOP_PLACEMENT_GRID;
        const int members = grid ? ranks : bcop_placement_holders(ranks, p->rows);
        int idlest = 0;
        double least = INFINITY;
        for (int first = 0; first + members <= ranks; first += members) {
            double most = 0;
            for (int r = first; r < first + members; r++)
                most = fmax(most, load[r]);
            if (most < least) {
                least = most;
                idlest = first;
            }
        }
        choice[costliest].first = idlest;
        /* On the grid everything is divided. */
        const double part =
            grid ? cost_of(p) / members : bcop_placement_part(p->rows, p->cols, members);
        for (int r = idlest; r < idlest + members; r++)
            load[r] += part;
    }
}

/* Of the bundles left the costliest goes to the rank with the least load. */
static void deal(int ranks, int count, bcop_parameter *const parameter[],
                 bcop_placement_choice choice[], double load[]) {
    for (;;) {
        int costliest = -1, idlest = 0;
        double most = 0;
        for (int i = 0, end; i < count; i = end) {
            end = bundle_end(count, parameter, i);
            const double cost = owned_cost(parameter, choice, i, end);
            if (choice[i].owner < 0 && (costliest < 0 || cost > most)) {
                costliest = i;
                most = cost;
            }
        }
        if (costliest < 0)
            return;
        for (int r = 1; r < ranks; r++)
            if (load[r] < load[idlest])
                idlest = r;
        for (int i = costliest; i < bundle_end(count, parameter, costliest); i++) {
            choice[i].owner = idlest;
            if (choice[i].first < 0)
                choice[i].first = idlest;
        }
        load[idlest] += most;
    }
}

/* Whether a block may be SHARED, and what its rule says of it alone: forced, or too costly. */
static bool is_sharable(const bcop_parameter *p, const bcop_placement_choice *choice) {
    return p->orthonormal && choice->placement == BCOP_PLACEMENT_OWNED &&
           bcop_rows_panels(p->rows) > 1;
}

static bool must_share(const bcop_placement_rule *rule, const bcop_parameter *p) {
    return rule->wanted == BCOP_PLACEMENT_SHARED ||
           (rule->wanted == BCOP_PLACEMENT_AUTO && rule->share_above > 0 &&
            cost_of(p) > rule->share_above);
}

/* The costliest block that may still be shared; -1: none. */
static int next_to_share(int count, bcop_parameter *const parameter[],
                         const bcop_placement_choice choice[]) {
    int costliest = -1;
    for (int i = 0; i < count; i++)
        if (is_sharable(parameter[i], &choice[i]) &&
            (costliest < 0 || cost_of(parameter[i]) > cost_of(parameter[costliest])))
            costliest = i;
    return costliest;
}

/* Deals out what is placed, and gives the load of the busiest rank. */
static double deal_all(int ranks, int count, bcop_parameter *const parameter[],
                       bcop_placement_choice choice[]) {
    double load[BCOP_PLACEMENT_RANKS_MAX] = {0}, most = 0;
    for (int i = 0; i < count; i++)
        if (choice[i].placement != BCOP_PLACEMENT_REPLICATED)
            choice[i].owner = choice[i].first = -1;
    spread(ranks, count, parameter, choice, load);
    deal(ranks, count, parameter, choice, load);
    for (int r = 0; r < ranks; r++)
        most = fmax(most, load[r]);
    return most;
}

/* Shares the costliest blocks, as many as leave the busiest rank the least to do. A block that is
   shared needs more messages, so there must be something to gain. */
static void share_best(int ranks, int count, bcop_parameter *const parameter[],
                       bcop_placement_choice choice[]) {
    const double enough = 0.95;
    double least = deal_all(ranks, count, parameter, choice);
    int best = 0, shared[BCOP_PLACEMENT_SHARED_MAX], tried = 0;
    for (int block; tried < BCOP_PLACEMENT_SHARED_MAX &&
                    (block = next_to_share(count, parameter, choice)) >= 0;) {
        choice[block].placement = BCOP_PLACEMENT_SHARED;
        shared[tried++] = block;
        const double most = deal_all(ranks, count, parameter, choice);
        if (most < enough * least) {
            least = most;
            best = tried;
        }
    }
    while (tried > best)
        choice[shared[--tried]].placement = BCOP_PLACEMENT_OWNED;
    deal_all(ranks, count, parameter, choice);
}

void bcop_placement_choose(const bcop_placement_rule *rule, int ranks, int count,
                           bcop_parameter *const parameter[], bcop_placement_choice choice[]) {
    for (int i = 0, end; i < count; i = end) {
        end = bundle_end(count, parameter, i);
        const bool moves = ranks > 1 && is_movable(rule, parameter, i, end);
        for (int b = i; b < end; b++) {
            choice[b] = (bcop_placement_choice){
                moves ? BCOP_PLACEMENT_OWNED : BCOP_PLACEMENT_REPLICATED, 0, 0};
            if (moves && goes_on_grid(rule, parameter[b]))
                choice[b].placement = BCOP_PLACEMENT_GRID;
            else if (is_sharable(parameter[b], &choice[b]) && must_share(rule, parameter[b]))
                choice[b].placement = BCOP_PLACEMENT_SHARED;
        }
    }
    if (rule->wanted == BCOP_PLACEMENT_AUTO && rule->share_above == 0)
        share_best(ranks, count, parameter, choice);
    else
        deal_all(ranks, count, parameter, choice);
}
