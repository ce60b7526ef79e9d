#include "ortho/placement.h"

#include "ortho/bjorck.h"

#include <math.h>

const char *bcop_placement_name(bcop_placement placement) {
    static const char *const name[] = {"auto", "replicated", "owned", "shared", "grid"};
    return name[placement];
}

/* Below this an update takes less time than the messages that sharing it would need: 20 us at 50
   GFLOP/s. */
static const double small_cost = 1e6;

double bcop_placement_cost(int rows, int cols) {
    return 7.0 * rows * cols * cols + 2 * pow(cols, 3);
}

static double known_cost(const bcop_parameter *p) {
    return p->orthonormal ? bcop_placement_cost(p->rows, p->cols) : 0;
}

/* Flops of an update for each of so many holders of rows: as above, with the optimizer's step, and
   where few examples make the gradient (ortho/tangent.h) with 2 (rows + depth) of 4 rows cols^2.
   Of tall blocks the small matrices are the root's alone. */
static double part_of(const bcop_placement_rule *rule, const bcop_parameter *p, int holders) {
    const double n = p->cols, rows = (double)p->rows / holders, cube = n * n * n;
    const double project = p->depth > 0 ? 2 * (rows + p->depth) : 4 * rows;
    const bool alone = holders > 1 && bcop_bjorck_is_tall(p->rows, p->cols);
    return (project + (3 + rule->step_wide) * rows) * n * n +
           ((alone ? 0 : 2) + rule->step_small) * cube;
}

static double root_part(const bcop_parameter *p) {
    return bcop_bjorck_is_tall(p->rows, p->cols) ? 2 * pow(p->cols, 3) : 0;
}

static double cost_of(const bcop_placement_rule *rule, const bcop_parameter *p) {
    return p->orthonormal ? part_of(rule, p, 1) : 0;
}

/* The first parameter after the bundle that begins at i. */
static int bundle_end(int count, bcop_parameter *const parameter[], int i) {
    int end = i + 1;
    while (end < count && parameter[end]->bundle == parameter[i]->bundle)
        end++;
    return end;
}

/* What the whole blocks of parameters i .. end-1 cost. */
static double owned_cost(const bcop_placement_rule *rule, bcop_parameter *const parameter[],
                         const bcop_placement_choice choice[], int i, int end) {
    double cost = 0;
    for (; i < end; i++)
        cost += choice[i].placement == BCOP_PLACEMENT_OWNED ? cost_of(rule, parameter[i]) : 0;
    return cost;
}

/* Whether the parameters of a bundle are to be moved from rank to rank at all. */
static bool is_movable(const bcop_placement_rule *rule, bcop_parameter *const parameter[], int i,
                       int end) {
    double cost = 0;
    long blocks = 0;
    for (; i < end; i++) {
        cost += known_cost(parameter[i]);
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
            known_cost(p) > rule->grid_above);
}

static bool is_divided(bcop_placement placement) {
    return placement == BCOP_PLACEMENT_SHARED || placement == BCOP_PLACEMENT_GRID;
}

int bcop_placement_holders(int ranks, int rows) {
    const int panels = bcop_rows_panels(rows);
    return panels < ranks ? panels : ranks;
}

/* Adds a divided block to the loads of the ranks that hold it; *root: the idlest of them. */
static void add_divided(const bcop_placement_rule *rule, const bcop_parameter *p, bool grid,
                        int members, int *root, double load[]) {
    const double part = grid ? cost_of(rule, p) / members : part_of(rule, p, members);
    *root = 0;
    for (int r = 1; r < members; r++)
        if (load[r] < load[*root])
            *root = r;
    load[*root] += grid || members == 1 ? 0 : root_part(p);
    for (int r = 0; r < members; r++)
        load[r] += part;
}

/* Spreads the blocks that are SHARED or on the GRID, the costliest first, each over the group of
   consecutive ranks that has the least to do. */
static void spread(const bcop_placement_rule *rule, int ranks, int count,
                   bcop_parameter *const parameter[], bcop_placement_choice choice[],
                   double load[]) {
    for (;;) {
        int costliest = -1;
        for (int i = 0; i < count; i++)
            if (is_divided(choice[i].placement) && choice[i].first < 0 &&
                (costliest < 0 ||
                 cost_of(rule, parameter[i]) > cost_of(rule, parameter[costliest])))
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
        add_divided(rule, p, grid, members, &choice[costliest].root, load + idlest);
    }
}

/* Of the bundles left the costliest goes to the rank with the least load. */
static void deal(const bcop_placement_rule *rule, int ranks, int count,
                 bcop_parameter *const parameter[], bcop_placement_choice choice[], double load[]) {
    for (;;) {
        int costliest = -1, idlest = 0;
        double most = 0;
        for (int i = 0, end; i < count; i = end) {
            end = bundle_end(count, parameter, i);
            const double cost = owned_cost(rule, parameter, choice, i, end);
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
            known_cost(p) > rule->share_above);
}

/* The costliest block that may still be shared; -1: none. */
static int next_to_share(const bcop_placement_rule *rule, int count,
                         bcop_parameter *const parameter[], const bcop_placement_choice choice[]) {
    int costliest = -1;
    for (int i = 0; i < count; i++)
        if (is_sharable(parameter[i], &choice[i]) &&
            (costliest < 0 || cost_of(rule, parameter[i]) > cost_of(rule, parameter[costliest])))
            costliest = i;
    return costliest;
}

/* Deals out what is placed, and gives the load of the busiest rank. */
static double deal_all(const bcop_placement_rule *rule, int ranks, int count,
                       bcop_parameter *const parameter[], bcop_placement_choice choice[]) {
    double load[BCOP_PLACEMENT_RANKS_MAX] = {0}, most = 0;
    for (int i = 0; i < count; i++)
        if (choice[i].placement != BCOP_PLACEMENT_REPLICATED)
            choice[i] = (bcop_placement_choice){choice[i].placement, -1, -1, 0};
    spread(rule, ranks, count, parameter, choice, load);
    deal(rule, ranks, count, parameter, choice, load);
    for (int r = 0; r < ranks; r++)
        most = fmax(most, load[r]);
    return most;
}

/* Shares the costliest blocks, as many as leave the busiest rank the least to do. A block that is
   shared needs more messages, so there must be something to gain. */
static void share_best(const bcop_placement_rule *rule, int ranks, int count,
                       bcop_parameter *const parameter[], bcop_placement_choice choice[]) {
    const double enough = 0.97;
    double least = deal_all(rule, ranks, count, parameter, choice);
    int best = 0, shared[BCOP_PLACEMENT_SHARED_MAX], tried = 0;
    for (int block; tried < BCOP_PLACEMENT_SHARED_MAX &&
                    (block = next_to_share(rule, count, parameter, choice)) >= 0;) {
        choice[block].placement = BCOP_PLACEMENT_SHARED;
        shared[tried++] = block;
        const double most = deal_all(rule, ranks, count, parameter, choice);
        if (most < enough * least) {
            least = most;
            best = tried;
        }
    }
    while (tried > best)
        choice[shared[--tried]].placement = BCOP_PLACEMENT_OWNED;
    deal_all(rule, ranks, count, parameter, choice);
}

void bcop_placement_choose(const bcop_placement_rule *rule, int ranks, int count,
                           bcop_parameter *const parameter[], bcop_placement_choice choice[]) {
    for (int i = 0, end; i < count; i = end) {
        end = bundle_end(count, parameter, i);
        const bool moves = ranks > 1 && is_movable(rule, parameter, i, end);
        for (int b = i; b < end; b++) {
            choice[b] = (bcop_placement_choice){
                moves ? BCOP_PLACEMENT_OWNED : BCOP_PLACEMENT_REPLICATED, 0, 0, 0};
            if (moves && goes_on_grid(rule, parameter[b]))
                choice[b].placement = BCOP_PLACEMENT_GRID;
            else if (is_sharable(parameter[b], &choice[b]) && must_share(rule, parameter[b]))
                choice[b].placement = BCOP_PLACEMENT_SHARED;
        }
    }
    if (rule->wanted == BCOP_PLACEMENT_AUTO && rule->share_above == 0)
        share_best(rule, ranks, count, parameter, choice);
    else
        deal_all(rule, ranks, count, parameter, choice);
}
