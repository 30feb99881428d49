/* How one NR slot of one direction is shared out: the order of the scheduler's passes and the PRBs that each
 * pass may use. Plain C, no type of the gNB's, so that it is tested alone.
 *
 * Every UE is in at most one pass an NR slot, because a pass updates the scheduler's own averages of its UEs.
 *   1. Each UE that waits for a retransmission, alone: inside its range if it fits, else wherever it fits, as
 *      near to the range as can be. OAI does not check that a UL retransmission ends inside the free PRBs, so
 *      a window is never smaller than what is sent.
 *   2. A UE whose range cannot hold the smallest grant gets that grant, at the top of what its bandwidth part
 *      reaches, one UE of a range each NR slot: a UE of the last range for anything while a slice has data, a
 *      UE of a slice for signalling.
 *   3. The slices, each inside its range.
 *   4. The UEs without a slice: the longest run of PRBs that is left of the whole carrier.
 * A DCI is kept for 4, or for the grant of a UE of the last range in 2; where an NR slot has but one, 3 and 4 take
 * turns.
 * A pass may use one run of PRBs, the longest that is free: OAI starts at the first free PRB, however short the run
 * is. Where it looks for a run for each UE, a pass of several UEs has the whole of its range.
 */
#ifndef PRBANDIT_PASSES_H
#define PRBANDIT_PASSES_H

#include <stdbool.h>
#include <stdint.h>

#include "prbandit_agent.h"

#define PASSES_MAX_PRB 275
#define PASSES_MAX_UES PRBANDIT_MAX_UES
#define PASSES_MAX_RANGES (PRBANDIT_MAX_SLICES + 1)

typedef struct {
  void *ue;              /* the gNB's */
  uint32_t range;        /* index of its range */
  prbandit_range reach;  /* PRBs that its bandwidth part and DCI format can address */
  uint16_t retx_prb;     /* the most PRBs that its next HARQ retransmission takes, 0: none waits */
  bool waits;            /* has something to send or to receive */
  bool signals;          /* of which some is signalling */
  uint16_t new_prb, sent_retx_prb; /* result: PRBs of its grant */
  bool served;           /* result: was in a pass */
} passes_ue;

/* Runs the gNB's scheduler for `n` UEs on the PRBs of `window`, which may be empty: then it must grant nothing.
 * Fills new_prb and sent_retx_prb, and sets `busy` for the PRBs that it gave. */
typedef void (*passes_run_fn)(void *context, passes_ue *const *ues, uint32_t n, prbandit_range window, bool *busy);

typedef struct {
  uint16_t n_prb, min_prb;
  bool finds_runs;    /* the scheduler looks for a free run for each UE (2026) */
  bool top_is_lost;   /* the scheduler never starts a smallest grant at the last PRBs (UL of May 2024) */
  bool blind_pregrant; /* it gives a UE with an empty buffer a smallest grant, free PRBs or not (likewise) */
  uint32_t max_grants; /* DCIs of one NR slot */
  uint32_t *turn;     /* the NR slots of this direction that were shared out; rotates who comes first. A count of
                       * all NR slots keeps step with the TDD period, and the same slice would always be last. */
  const prbandit_range *ranges;
  uint32_t n_ranges;  /* at least 1: the last one is for UEs without a slice */
} passes_slot;

typedef struct {
  uint32_t new_prb, retx_prb, widened_prb;
} passes_use;

/* Shares out one NR slot and counts it in `turn`. `busy`: n_prb flags, PRBs that are taken already; the grants are
 * added. `use`: one for each range. Gives the number of grants. */
uint32_t passes_share(const passes_slot *slot, bool *busy, passes_ue *ues, uint32_t n_ues, passes_use *use,
                      passes_run_fn run, void *context);

/* The longest free run inside `within`; of size 0 where none is. Of equal ones the lowest. */
prbandit_range passes_longest_run(const bool *busy, prbandit_range within);

/* `size` free PRBs inside `reach` with as many as possible in `range`; of size 0 where there are none. */
prbandit_range passes_place(const bool *busy, prbandit_range reach, prbandit_range range, uint16_t size);

prbandit_range passes_overlap(prbandit_range a, prbandit_range b);

#endif
