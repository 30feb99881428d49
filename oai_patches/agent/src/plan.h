/* What the scheduler goes by: the slices' PRB ranges, whose UEs they are, and until when. Built by the agent's
 * thread, then only read. */
#ifndef PRBANDIT_PLAN_H
#define PRBANDIT_PLAN_H

#include "link.h"

enum {
  MAX_RANGES = PRBANDIT_MAX_SLICES + 1, /* and the one of what is left */
  MEMBER_TABLE = 2 * PRBANDIT_MAX_BINDINGS
};

typedef struct {
  uint64_t id;    /* of the link_enforce that it carries out */
  int64_t expires; /* CLOCK_BOOTTIME, ns */
  uint32_t n_ranges;
  uint32_t n_rows; /* n_ranges, at least 1 */
  prbandit_range ranges[2][MAX_RANGES];
  char slices[MAX_RANGES][PRBANDIT_NAME_SIZE]; /* the last of n_rows is "" */
  uint32_t n_snssais;
  struct {
    uint32_t key;
    uint8_t range;
  } snssais[PRBANDIT_MAX_SLICES];
  struct {
    char ue_id[PRBANDIT_NAME_SIZE]; /* "": free */
    uint8_t range;
  } members[MEMBER_TABLE];
} plan;

/* False where the ranges do not fit the carrier; then `plan` has no ranges and `why` says it.
 *
 * A quota below the scheduler's smallest grant can never be used: its range is empty, and its PRBs are left to
 * the others (the emulated cell has the same effect). */
bool plan_build(plan *plan, const link_quotas *quotas, const prbandit_config *config, const prbandit_cell *cell,
                char *why, size_t why_size);

/* Index of the UE's range; 0 where the plan has none. */
uint32_t plan_range_of(const plan *plan, const char *ue_id, prbandit_snssai snssai);

/* The name of a UE's slice by configuration or binding, whether it has a quota or not; "": none. */
const char *slice_name_of(const prbandit_config *config, const link_quotas *bound, const char *ue_id,
                          prbandit_snssai snssai);

#endif
