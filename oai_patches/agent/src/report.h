/* What the scheduler's thread left behind, in the words of the RAN link. */
#ifndef PRBANDIT_REPORT_H
#define PRBANDIT_REPORT_H

#include "hot.h"

/* A MacReport without session and sequence. `bound` names the slices of UEs without a configured S-NSSAI. */
void report_fill(prbandit_ran_GnbMessage *message, const snapshot *from, const prbandit_config *config,
                 const link_quotas *bound);

/* Use that was taken and not yet acknowledged. */
typedef struct {
  uint32_t n;
  prbandit_ran_SliceUse uses[4 * MAX_RANGES];
} use_ledger;

/* Adds a receipt's use. Returns how many entries found no place, which are lost. */
uint32_t ledger_add(use_ledger *ledger, const receipt *from);

#endif
