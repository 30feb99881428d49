/* The scheduler's side with both ends in one thread: what is handed over, and when. */
#include <time.h>

#include "check.h"
#include "report.h"

static const prbandit_cell CELL = {106, 5, 30, {5, 1, 10, 2, 3}};
static const prbandit_snssai NONE = {0, PRBANDIT_NO_SD};
static const prbandit_config CONFIG;
static hot_side hot;

static uint32_t fill_calls, fill_n;
static uint32_t fill(void *context, prbandit_ue *ues, uint32_t max) {
  CHECK(context == &fill_n && max == PRBANDIT_MAX_UES);
  for (uint32_t i = 0; i < fill_n && i < max; i++) {
    memset(&ues[i], 0, sizeof ues[i]);
    ues[i].rnti = (uint16_t)(1 + i);
    snprintf(ues[i].ue_id, sizeof ues[i].ue_id, "ue-%u", i);
    ues[i].dl.queued_bytes = 1000 + i;
  }
  fill_calls++;
  return fill_n;
}

static void nr_slot(uint32_t frame, uint32_t slot) {
  hot_nr_slot(&hot, frame, slot, fill, &fill_n);
}

static void hand_over(uint64_t id, uint32_t prb, int64_t lease_ns) {
  char why[64];
  link_quotas q = {.n_quotas = prb ? 1 : 0, .n_bindings = 1, .quotas = {{"ar", prb, prb}}, .bindings = {{"ue-1", "ar"}}};
  plan *p = hot_next_plan(&hot);
  CHECK(plan_build(p, &q, &CONFIG, &CELL, why, sizeof why));
  p->id = id;
  p->expires = boottime_ns() + lease_ns;
  hot_hand_over(&hot);
}

static uint32_t ranges(void) {
  const prbandit_range *r;
  return hot_ranges(&hot, PRBANDIT_UL, &r);
}

static void sleep_ns(long ns) {
  struct timespec t = {ns / NS_PER_S, ns % NS_PER_S};
  nanosleep(&t, NULL);
}

static void test_ranges_hold_still_within_an_nr_slot(void) {
  hot_init(&hot);
  nr_slot(0, 0);
  CHECK(ranges() == 0 && hot_slice_of(&hot, "ue-1", NONE) == 0);
  hand_over(1, 30, NS_PER_S);
  CHECK(ranges() == 0);
  nr_slot(0, 1);
  const prbandit_range *r;
  CHECK(hot_ranges(&hot, PRBANDIT_DL, &r) == 2 && r[0].size == 30 && r[1].start == 30 && r[1].size == 76);
  CHECK(hot_slice_of(&hot, "ue-1", NONE) == 0 && hot_slice_of(&hot, "ue-2", NONE) == 1);
  /* The same RNTI may be another UE by the next NR slot: only the id counts. */
}

static void test_only_the_scheduler_acknowledges(void) {
  hot_init(&hot);
  CHECK(!hot_receipt(&hot));
  hand_over(1, 30, NS_PER_S);
  CHECK(!hot_receipt(&hot));
  nr_slot(1023, 19);
  const receipt *r = hot_receipt(&hot);
  CHECK(r && r->plan_id == 1 && r->at.frame == 1023 && r->at.slot == 19 && r->at.time_ns > 0);
  hot_receipt_read(&hot);
  nr_slot(1024, 0); /* the frame wraps */
  CHECK(!hot_receipt(&hot));
  hand_over(2, 30, NS_PER_S);
  nr_slot(1024, 1);
  r = hot_receipt(&hot);
  CHECK(r && r->plan_id == 2 && r->at.frame == 0 && r->at.slot == 1);
}

static void test_a_plan_waits_until_the_receipt_before_is_read_and_the_newest_wins(void) {
  hot_init(&hot);
  hand_over(1, 30, NS_PER_S);
  nr_slot(0, 0);
  hand_over(2, 40, NS_PER_S);
  nr_slot(0, 1);
  hand_over(3, 50, NS_PER_S);
  nr_slot(0, 2);
  CHECK(hot_receipt(&hot)->plan_id == 1 && hot.plan->id == 1);
  hot_receipt_read(&hot);
  nr_slot(0, 3);
  CHECK(hot_receipt(&hot)->plan_id == 3 && hot.plan->id == 3);
}

static void test_a_lease_ends_without_the_agents_thread(void) {
  hot_init(&hot);
  hand_over(1, 30, 50 * NS_PER_MS);
  nr_slot(0, 0);
  CHECK(ranges() == 2);
  sleep_ns(60 * NS_PER_MS);
  nr_slot(0, 1);
  CHECK(ranges() == 0 && hot_slice_of(&hot, "ue-2", NONE) == 0);
  /* What is used from here on is nobody's slice. */
  hot_used(&hot, PRBANDIT_UL, 0, 106, 0);
  hot_receipt_read(&hot);
  hand_over(2, 0, 0);
  nr_slot(0, 2);
  const receipt *r = hot_receipt(&hot);
  CHECK(r->n == 2 && r->use[0][PRBANDIT_UL].slots == 0 && r->slices[1][0] == '\0');
  CHECK(r->use[1][PRBANDIT_UL].slots == 1 && r->use[1][PRBANDIT_UL].max_new_prb == 106);
}

static void test_a_lease_that_ended_before_the_plan_was_taken_never_holds(void) {
  hot_init(&hot);
  hand_over(1, 30, -1);
  nr_slot(0, 0);
  CHECK(ranges() == 0);
}

static void test_use_is_summed_from_receipt_to_receipt(void) {
  hot_init(&hot);
  nr_slot(0, 0);
  hot_used(&hot, PRBANDIT_DL, 0, 90, 6);
  hand_over(1, 30, NS_PER_S);
  nr_slot(0, 1);
  use_ledger ledger = {0};
  CHECK(ledger_add(&ledger, hot_receipt(&hot)) == 0 && ledger.n == 2);
  CHECK(strcmp(ledger.uses[1].slice, "") == 0 && ledger.uses[1].direction == prbandit_ran_Direction_DL);
  CHECK(ledger.uses[1].max_new_prb == 90 && ledger.uses[1].retx_prb_slots == 6 && ledger.uses[1].slots == 1);
  hot_receipt_read(&hot);
  for (int i = 0; i < 10; i++) {
    hot_used(&hot, PRBANDIT_UL, 0, 10 + (uint32_t)i, 5);
    hot_used(&hot, PRBANDIT_UL, 1, 7, 0);
    hot_used(&hot, PRBANDIT_UL, 99, 1, 0); /* counts with what is left */
  }
  hand_over(2, 30, NS_PER_S);
  nr_slot(0, 2);
  CHECK(ledger_add(&ledger, hot_receipt(&hot)) == 0 && ledger.n == 4);
  prbandit_ran_SliceUse *ar = &ledger.uses[2], *rest = &ledger.uses[0];
  CHECK(strcmp(ar->slice, "ar") == 0 && ar->direction == prbandit_ran_Direction_UL);
  CHECK(ar->max_new_prb == 19 && ar->new_prb_slots == 145 && ar->retx_prb_slots == 50 && ar->slots == 10);
  CHECK(rest->max_new_prb == 7 && rest->new_prb_slots == 80 && rest->slots == 20);
}

static void test_reports_come_at_their_period_and_the_newest_is_kept(void) {
  hot_init(&hot);
  fill_calls = 0, fill_n = 2;
  nr_slot(0, 0);
  CHECK(fill_calls == 0 && !hot_snapshot(&hot));
  atomic_store(&hot.report_period_ms, 20);
  nr_slot(5, 1);
  CHECK(fill_calls == 1);
  const snapshot *s = hot_snapshot(&hot);
  CHECK(s && s->n == 2 && s->frame == 5 && s->slot == 1 && strcmp(s->ues[1].ue_id, "ue-1") == 0);
  nr_slot(5, 2);
  CHECK(fill_calls == 1 && !hot_snapshot(&hot));
  for (uint32_t i = 0; i < 3; i++) {
    sleep_ns(21 * NS_PER_MS);
    nr_slot(6, i);
  }
  CHECK(fill_calls == 4 && atomic_load(&hot.reports_dropped) == 2);
  s = hot_snapshot(&hot);
  CHECK(s && s->slot == 2 && !hot_snapshot(&hot));
  atomic_store(&hot.report_period_ms, 0);
  sleep_ns(21 * NS_PER_MS);
  nr_slot(7, 0);
  CHECK(fill_calls == 4);
  hot_nr_slot(&hot, 7, 1, NULL, NULL);
}

static void test_ues_beyond_the_report_are_counted(void) {
  hot_init(&hot);
  fill_n = 70;
  atomic_store(&hot.report_period_ms, 10);
  nr_slot(0, 0);
  CHECK(hot_snapshot(&hot)->n == 64 && atomic_load(&hot.ues_left_out) == 6);
}

static void test_a_report_survives_odd_names(void) {
  static snapshot s = {.n = 2};
  static prbandit_ran_GnbMessage m;
  link_quotas bound = {.n_bindings = 1, .bindings = {{"ue-1", "ar"}}};
  memset(s.ues[0].ue_id, 'x', sizeof s.ues[0].ue_id); /* without an end */
  strcpy(s.ues[1].ue_id, "a\xff\n");
  report_fill(&m, &s, &CONFIG, &bound);
  CHECK(strlen(m.body.mac_report.ues[0].ue_id) == 31);
  CHECK(strcmp(m.body.mac_report.ues[1].ue_id, "a??") == 0);
}

int main(void) {
  test_ranges_hold_still_within_an_nr_slot();
  test_only_the_scheduler_acknowledges();
  test_a_plan_waits_until_the_receipt_before_is_read_and_the_newest_wins();
  test_a_lease_ends_without_the_agents_thread();
  test_a_lease_that_ended_before_the_plan_was_taken_never_holds();
  test_use_is_summed_from_receipt_to_receipt();
  test_reports_come_at_their_period_and_the_newest_is_kept();
  test_ues_beyond_the_report_are_counted();
  test_a_report_survives_odd_names();
  return 0;
}
