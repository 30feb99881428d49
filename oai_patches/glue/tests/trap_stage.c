/* The allocation stage under the trap of the agent's hot calls, beside an agent's thread that hands over plans. */
#include "round.h"
#define hot toy_hot
#include "trap.h"

static void hand_over_some(uint64_t id, int64_t lease_ns) {
  toy_hand_over(round_prb, round_prb, id % 4 ? 2 : 0, NULL, NULL, 0, lease_ns);
}

static void one_nr_slot(uint32_t n) {
  hot_nr_slot(&hot, n / 20, n % 20, NULL, NULL);
  round_run(n % (ROUND_UES + 1), (prbandit_direction)(n % 2));
}
