#include "ortho/placement.h"

#include "ortho/rows.h"

const char *bcop_placement_name(bcop_placement placement) {
    static const char *const name[] = {"auto", "replicated", "owned", "shared", "grid"};
    return name[placement];
}

/* Below this an update takes less time than the messages that sharing it would need: 20 us at 50
   GFLOP/s. */
static const double small_cost = 1e6;

double bcop_placement_cost(int rows, int cols) {
    const double iterations = 2, n = cols, square = n * n;
    return rows >= 3L * cols ? 7 * rows * square + 5 * iterations * square * n
                             : (4 + 3 * iterations) * rows * square;
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

int bcop_placement_holders(int ranks, int rows) {
    const int panels = bcop_rows_panels(rows);
    return panels < ranks ? panels : ranks;
}

/* Longest processing time first: of the bundles left the costliest goes to the rank with the least
   load. */
static void deal(int ranks, int count, bcop_parameter *const parameter[],
                 bcop_placement_choice choice[]) {
    double load[BCOP_PLACEMENT_RANKS_MAX] = {0};
    for (int i = 0; i < count; i++) {
        const bcop_placement p = choice[i].placement;
        if (p != BCOP_PLACEMENT_SHARED && p != BCOP_PLACEMENT_GRID)
            continue;
        const int members =
            p == BCOP_PLACEMENT_GRID ? ranks : bcop_placement_holders(ranks, parameter[i]->rows);
        for (int r = 0; r < members; r++)
            load[r] += cost_of(parameter[i]) / members;
    }
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
        for (int i = costliest; i < bundle_end(count, parameter, costliest); i++)
            choice[i].owner = idlest;
        load[idlest] += most;
    }
}

/* Marks one more block as SHARED: the first that costs more than `limit`, or, for a limit of 0, the
   first of a bundle that costs more than one rank's part of all that is not shared. False when
   there is none. */
static bool share_one(const bcop_placement_rule *rule, double limit, int ranks, int count,
                      bcop_parameter *const parameter[], bcop_placement_choice choice[]) {
    const double part = owned_cost(parameter, choice, 0, count) / ranks;
    for (int i = 0, end; i < count; i = end) {
        end = bundle_end(count, parameter, i);
        const double bundle = owned_cost(parameter, choice, i, end);
        for (int b = i; b < end; b++) {
            const bcop_parameter *p = parameter[b];
            const bool wanted = rule->wanted == BCOP_PLACEMENT_SHARED ||
                                (limit > 0 ? cost_of(p) > limit : bundle > part);
            if (p->orthonormal && choice[b].placement == BCOP_PLACEMENT_OWNED && wanted &&
                bcop_rows_panels(p->rows) > 1) {
                choice[b].placement = BCOP_PLACEMENT_SHARED;
                return true;
            }
        }
    }
    return false;
}

void bcop_placement_choose(const bcop_placement_rule *rule, int ranks, int count,
                           bcop_parameter *const parameter[], bcop_placement_choice choice[]) {
    for (int i = 0, end; i < count; i = end) {
        end = bundle_end(count, parameter, i);
        const bool moves = ranks > 1 && is_movable(rule, parameter, i, end);
        for (int b = i; b < end; b++) {
            choice[b] = moves ? (bcop_placement_choice){BCOP_PLACEMENT_OWNED, -1}
                              : (bcop_placement_choice){BCOP_PLACEMENT_REPLICATED, 0};
            if (moves && goes_on_grid(rule, parameter[b]))
                choice[b].placement = BCOP_PLACEMENT_GRID;
        }
    }
    if (rule->wanted == BCOP_PLACEMENT_AUTO || rule->wanted == BCOP_PLACEMENT_SHARED)
        while (share_one(rule, rule->share_above, ranks, count, parameter, choice))
            ;
    deal(ranks, count, parameter, choice);
}
