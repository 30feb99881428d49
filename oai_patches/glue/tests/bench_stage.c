/* Cost of the allocation stage, ns an NR slot: best of some runs, for 1, 4 and 16 UEs with data in two slices. Beside
 * it what the made-up gNB's own stage takes when it is called once for all of them. */
#include "round.h"

enum { ROUNDS = 20, CALLS = 20000 };

static double best_ns(uint32_t n) {
  double best = 1e18;
  for (int round = 0; round < ROUNDS; round++) {
    const int64_t began = boottime_ns();
    for (uint32_t i = 0; i < CALLS; i++)
      round_run(n, PRBANDIT_DL);
    const double ns = (double)(boottime_ns() - began) / CALLS;
    best = ns < best ? ns : best;
  }
  return best;
}

int main(void) {
  static const uint32_t ues[] = {1, 4, 16};
  double alone[3];
  toy_quotas(NULL, NULL, 0, NULL, NULL, 0);
  for (int k = 0; k < 3; k++)
    alone[k] = best_ns(ues[k]);
  toy_quotas(round_prb, round_prb, 2, NULL, NULL, 0);
  for (int k = 0; k < 3; k++) {
    const double shared = best_ns(ues[k]);
    printf("allocation stage, %2u UEs: %7.1f ns without quotas, %7.1f ns in two slices, %6.1f ns a UE more\n", ues[k],
           alone[k], shared, (shared - alone[k]) / ues[k]);
  }
  return 0;
}
