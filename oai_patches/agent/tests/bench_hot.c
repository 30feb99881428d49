/* Cost of the hot calls, ns a call: best of some runs, for 16 UEs in three slices. */
#include <time.h>

#include "scheduler.h"

enum { ROUNDS = 20, CALLS = 100000 };

static double best_ns(void (*call)(uint32_t)) {
  double best = 1e18;
  for (int round = 0; round < ROUNDS; round++) {
    int64_t began = boottime_ns();
    for (uint32_t i = 0; i < CALLS; i++)
      call(i);
    double ns = (double)(boottime_ns() - began) / CALLS;
    best = ns < best ? ns : best;
  }
  return best;
}

static volatile uint32_t sink;

static void nr_slot(uint32_t i) {
  hot_nr_slot(&hot, i / 20, i % 20, NULL, NULL);
}

static void nr_slot_with_snapshot(uint32_t i) {
  hot.report_due = 0;
  hot_nr_slot(&hot, i / 20, i % 20, fill_some, NULL);
}

static void nr_slot_with_plan(uint32_t i) {
  hot_hand_over(&hot);
  hot_nr_slot(&hot, i / 20, i % 20, NULL, NULL);
  hot_receipt_read(&hot);
}

static void ranges(uint32_t i) {
  const prbandit_range *r;
  sink = hot_ranges(&hot, (prbandit_direction)(i % 2), &r);
}

static void slice_by_binding(uint32_t i) {
  sink = hot_slice_of(&hot, ue_ids[i % SOME_UES], NO_SNSSAI);
}

static void slice_by_snssai(uint32_t i) {
  sink = hot_slice_of(&hot, ue_ids[i % SOME_UES], (prbandit_snssai){1, 1 + i % 3});
}

static void used(uint32_t i) {
  hot_used(&hot, PRBANDIT_UL, i % 4, i % 30, 0);
}

int main(void) {
  hot_init(&hot);
  atomic_store(&hot.report_period_ms, 10);
  for (int i = 0; i < 3; i++) {
    hand_over_some(1, 3600 * NS_PER_S);
    hot_nr_slot(&hot, 0, 0, NULL, NULL);
    hot_receipt_read(&hot);
  }
  double plain = best_ns(nr_slot), with = best_ns(nr_slot_with_snapshot);
  printf("prbandit_nr_slot, nothing due                %7.1f ns\n", plain);
  printf("prbandit_nr_slot, a report of 16 UEs due     %7.1f ns (%.1f ns a UE)\n", with, (with - plain) / SOME_UES);
  printf("prbandit_nr_slot, a new plan                 %7.1f ns\n", best_ns(nr_slot_with_plan));
  printf("prbandit_ranges                              %7.1f ns\n", best_ns(ranges));
  printf("prbandit_slice_of, by binding                %7.1f ns\n", best_ns(slice_by_binding));
  printf("prbandit_slice_of, by S-NSSAI                %7.1f ns\n", best_ns(slice_by_snssai));
  printf("prbandit_used                                %7.1f ns\n", best_ns(used));
  return 0;
}
