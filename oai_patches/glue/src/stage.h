/* The allocation stage of a scheduler that works as a pipeline: it is called with the candidates of one NR slot
 * and a map of the PRBs, and here it is called once for each pass of passes.h, with that pass's candidates and a
 * copy of the map in which only that pass's PRBs are free. Plain C, no type of the gNB's, so that it is tested
 * alone.
 *
 * The candidates of a pass are brought to stand next to each other, as the gNB's stage takes a run of its array;
 * their order in the array has no meaning to it. */
#ifndef PRBANDIT_STAGE_H
#define PRBANDIT_STAGE_H

#include "passes.h"

typedef struct {
  uint16_t rnti;
  prbandit_snssai snssai;
  prbandit_range reach;  /* its bandwidth part */
  uint16_t symbols;      /* bit map of the symbols of its allocation */
  uint16_t retx_prb;     /* as in passes_ue */
  bool dropped;          /* an earlier stage dropped it: it gets nothing in this NR slot */
  bool signals;          /* as in passes_ue */
} stage_candidate;

/* What is the gNB's own. */
typedef struct {
  size_t candidate_size;
  void (*read)(const void *candidate, stage_candidate *to);
  /* PRBs of the carrier; of size 0 where the candidate was not scheduled */
  prbandit_range (*grant)(const void *candidate);
  /* The gNB's stage on `n` candidates and `map`, of n_prb symbol bit maps, with at most `max_grants` grants. Of the
   * map's PRBs `n_free` are free, where it is less than what the gNB takes them to be; 0: they are as the gNB says. */
  void (*allocate)(void *context, void *candidates, uint32_t n, uint16_t *map, uint32_t max_grants, uint32_t n_free);
} stage_gnb;

typedef struct {
  prbandit_agent *agent;
  prbandit_direction direction;
  uint16_t n_prb, min_prb;
  uint32_t *turn; /* as in passes_slot */
} stage_cell;

/* What the stages have seen, for the log. */
typedef struct {
  uint32_t outside; /* grants on PRBs that were not free for them */
} stage_faults;

/* Shares out one NR slot among `n` candidates and tells the agent what each range used. `map`: the gNB's, which
 * gets the grants. Where no quota is in force the gNB's stage is called once, with everything as it is. At most
 * PASSES_MAX_UES candidates are dealt with; those beyond get nothing in this NR slot. Gives the number of grants. */
uint32_t stage_run(const stage_gnb *gnb, void *context, const stage_cell *cell, void *candidates, uint32_t n,
                   uint16_t *map, uint32_t max_grants, stage_faults *faults);

/* An NR slot of this direction in which the gNB had nothing to allocate. */
void stage_idle(const stage_cell *cell);

/* Whether a UE counts as one that wants to signal because it had no UL grant for long: what its buffer holds is not
 * known. Long is the gNB's own limit of frames, but no less than 10: with a limit of 0 all UEs would count, always. */
bool stage_silent(uint32_t frame, uint32_t last_ul_frame, uint32_t limit);

/* The id of a UE, `rnti-` and four hexadecimal digits. */
void stage_ue_id(uint16_t rnti, char id[PRBANDIT_NAME_SIZE]);

#endif
