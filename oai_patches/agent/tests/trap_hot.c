/* The hot calls under the trap. */
#include "scheduler.h"
#include "trap.h"

static void one_nr_slot(uint32_t n) {
  hot.report_due = 0;
  hot_nr_slot(&hot, n / 20, n % 20, fill_some, NULL);
  for (prbandit_direction d = PRBANDIT_UL; d <= PRBANDIT_DL; d++) {
    const prbandit_range *r;
    uint32_t ranges = hot_ranges(&hot, d, &r);
    for (uint32_t i = 0; i < SOME_UES; i++)
      hot_used(&hot, d, hot_slice_of(&hot, ue_ids[i], (prbandit_snssai){i % 2, 1}), ranges ? r[0].size : 5, 1);
    hot_widened(&hot, 3);
  }
}
