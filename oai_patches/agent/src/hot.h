/* The scheduler's side: everything that a hot call touches. No lock, allocation, system call or log line; the
 * clocks are read through the vDSO. */
#ifndef PRBANDIT_HOT_H
#define PRBANDIT_HOT_H

#include "plan.h"
#include "triple.h"

typedef struct {
  uint32_t frame, slot, n;
  uint64_t time_ns;
  prbandit_ue ues[PRBANDIT_MAX_UES];
} snapshot;

typedef struct {
  uint32_t max_new_prb, slots;
  uint64_t new_prb_slots, retx_prb_slots;
} use_sum;

/* The scheduler has taken a plan: when, and what the slices of the plan before used up to then. */
typedef struct {
  uint64_t plan_id;
  cell_time at;
  uint32_t n;
  char slices[MAX_RANGES][PRBANDIT_NAME_SIZE];
  use_sum use[MAX_RANGES][2];
} receipt;

typedef struct {
  /* Between the threads. */
  triple plan_turn, snapshot_turn;
  plan plans[3];
  snapshot snapshots[3];
  receipt receipt; /* the scheduler's while `posted` is false, else the agent's */
  alignas(64) atomic_bool posted;
  atomic_uint report_period_ms; /* 0: no reports */
  _Atomic uint64_t reports_dropped, ues_left_out, widened, widened_prb;
  /* The scheduler's own. */
  alignas(64) const plan *plan;
  bool in_force;
  int64_t report_due;
  use_sum use[MAX_RANGES][2];
} hot_side;

void hot_init(hot_side *hot);

/* CLOCK_BOOTTIME: unlike CLOCK_MONOTONIC it goes on while the host is suspended, and so do leases. Both are
 * in the vDSO of x86-64 and arm64. */
int64_t boottime_ns(void);

/* The agent's thread: a plan is filled in hot_next_plan() and then handed over. */
plan *hot_next_plan(hot_side *hot);
void hot_hand_over(hot_side *hot);
const receipt *hot_receipt(hot_side *hot); /* NULL: none; else hot_receipt_read() is to follow */
void hot_receipt_read(hot_side *hot);
const snapshot *hot_snapshot(hot_side *hot); /* NULL: none since the last */

/* The scheduler's thread. */
void hot_nr_slot(hot_side *hot, uint32_t frame, uint32_t slot, prbandit_snapshot_fn fill, void *context);
uint32_t hot_ranges(const hot_side *hot, prbandit_direction direction, const prbandit_range **ranges);
uint32_t hot_slice_of(const hot_side *hot, const char *ue_id, prbandit_snssai snssai);
void hot_used(hot_side *hot, prbandit_direction direction, uint32_t range, uint32_t new_prb, uint32_t retx_prb);
void hot_widened(hot_side *hot, uint32_t prb);

#endif
