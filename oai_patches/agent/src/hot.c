#include "hot.h"

#include <string.h>
#include <time.h>

static uint64_t clock_ns(clockid_t clock) {
  struct timespec t;
  clock_gettime(clock, &t);
  return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

int64_t boottime_ns(void) {
  return (int64_t)clock_ns(CLOCK_BOOTTIME);
}

/* These counters have one writer: no locked instruction is needed. */
static void add(_Atomic uint64_t *counter, uint64_t n) {
  atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + n, memory_order_relaxed);
}

void hot_init(hot_side *hot) {
  /* Touches every page, too: the scheduler must not be the first to do so. */
  memset(hot, 0, sizeof *hot);
  triple_init(&hot->plan_turn);
  triple_init(&hot->snapshot_turn);
  for (int i = 0; i < 3; i++)
    hot->plans[i].n_rows = 1;
  hot->plan = &hot->plans[hot->plan_turn.front];
}

/* ---- the agent's thread ---------------------------------------------------------------------------------- */

plan *hot_next_plan(hot_side *hot) {
  return &hot->plans[hot->plan_turn.back];
}

void hot_hand_over(hot_side *hot) {
  triple_publish(&hot->plan_turn);
}

const receipt *hot_receipt(hot_side *hot) {
  return atomic_load_explicit(&hot->posted, memory_order_acquire) ? &hot->receipt : NULL;
}

void hot_receipt_read(hot_side *hot) {
  atomic_store_explicit(&hot->posted, false, memory_order_release);
}

const snapshot *hot_snapshot(hot_side *hot) {
  return triple_take(&hot->snapshot_turn) ? &hot->snapshots[hot->snapshot_turn.front] : NULL;
}

/* ---- the scheduler's thread ------------------------------------------------------------------------------ */

static void take_plan(hot_side *hot, cell_time at) {
  /* While the receipt before has not been read there is no place for the use: the plan waits. */
  if (!triple_is_new(&hot->plan_turn) || atomic_load_explicit(&hot->posted, memory_order_acquire))
    return;
  receipt *r = &hot->receipt;
  r->at = at;
  r->at.time_ns = clock_ns(CLOCK_REALTIME);
  r->n = hot->plan->n_rows;
  memcpy(r->slices, hot->plan->slices, r->n * sizeof *r->slices);
  memcpy(r->use, hot->use, r->n * sizeof *r->use);
  memset(hot->use, 0, sizeof hot->use);
  triple_take(&hot->plan_turn);
  hot->plan = &hot->plans[hot->plan_turn.front];
  r->plan_id = hot->plan->id;
  atomic_store_explicit(&hot->posted, true, memory_order_release);
}

static void take_snapshot(hot_side *hot, cell_time at, prbandit_snapshot_fn fill, void *context) {
  snapshot *s = &hot->snapshots[hot->snapshot_turn.back];
  uint32_t n = fill(context, s->ues, PRBANDIT_MAX_UES);
  s->n = n < PRBANDIT_MAX_UES ? n : PRBANDIT_MAX_UES;
  s->frame = at.frame;
  s->slot = at.slot;
  s->time_ns = clock_ns(CLOCK_REALTIME);
  add(&hot->ues_left_out, n - s->n);
  if (triple_publish(&hot->snapshot_turn))
    add(&hot->reports_dropped, 1);
}

void hot_nr_slot(hot_side *hot, uint32_t frame, uint32_t slot, prbandit_snapshot_fn fill, void *context) {
  int64_t now = boottime_ns();
  cell_time at = {frame % 1024, slot, 0};
  take_plan(hot, at);
  /* Not only the agent's thread ends a lease: it may hang. */
  hot->in_force = hot->plan->n_ranges && now < hot->plan->expires;
  int64_t period = atomic_load_explicit(&hot->report_period_ms, memory_order_relaxed) * NS_PER_MS;
  if (!fill || !period || now < hot->report_due)
    return;
  hot->report_due = now - hot->report_due < period ? hot->report_due + period : now + period;
  take_snapshot(hot, at, fill, context);
}

uint32_t hot_ranges(const hot_side *hot, prbandit_direction direction, const prbandit_range **ranges) {
  *ranges = hot->plan->ranges[direction];
  return hot->in_force ? hot->plan->n_ranges : 0;
}

uint32_t hot_slice_of(const hot_side *hot, const char *ue_id, prbandit_snssai snssai) {
  return hot->in_force ? plan_range_of(hot->plan, ue_id, snssai) : 0;
}

void hot_used(hot_side *hot, prbandit_direction direction, uint32_t range, uint32_t new_prb, uint32_t retx_prb) {
  /* The last row is that of the UEs without a slice, which all are where nothing is in force. */
  uint32_t last = hot->plan->n_rows - 1;
  use_sum *u = &hot->use[hot->in_force && range < last ? range : last][direction];
  if (new_prb > u->max_new_prb)
    u->max_new_prb = new_prb;
  u->new_prb_slots += new_prb;
  u->retx_prb_slots += retx_prb;
  u->slots++;
}

void hot_widened(hot_side *hot, uint32_t prb) {
  add(&hot->widened, 1);
  add(&hot->widened_prb, prb);
}
