/* The one place that sees OAI's headers. What differs between its versions is in oai_version.h, which CMake
 * makes of versions.json. */
#ifndef PRBANDIT_OAI_H
#define PRBANDIT_OAI_H

#include "oai_version.h"

#include "NR_MAC_gNB/nr_mac_gNB.h"
#include "NR_MAC_gNB/mac_proto.h"
#include "common/ran_context.h"
#include "executables/softmodem-common.h"

#include "hooks.h"
#include "prbandit_agent.h"
#include "stage.h"

#define OAI_UL_MAP_SLOTS 64 /* most NR slots of OAI's UL map that are dealt with */

typedef struct {
  gNB_MAC_INST *mac;
  prbandit_agent *agent;
  uint16_t n_prb, ul_min_prb, slots_per_frame;
  bool aside;            /* OAI divides the PRBs itself: under the scheduler's lock */
  uint32_t calls;        /* NR slots seen */
  uint32_t turns[2];     /* NR slots shared out, by prbandit_direction */
  stage_faults faults;
} oai_glue;

/* module.c: an NR slot begins, with the first of OAI's functions that is called in it. */
void oai_begin_slot(oai_glue *glue, int frame, int slot);

#define OAI_HOOKS 4 /* at most */

/* pre_processor.c or pipeline.c, for the scheduler that the tree has. */
extern const char oai_scheduler[];

/* The hooks of the one cell that the glue is in. Gives how many. */
uint32_t oai_hooks(oai_glue *glue, hook **hooks);

/* Who divides the PRBs in this gNB besides us, so that our quotas would fight with it; NULL where nobody does. */
const char *oai_in_charge(const gNB_MAC_INST *mac);

/* snapshot.c: the state of each UE. */
uint32_t oai_snapshot(void *glue, prbandit_ue *ues, uint32_t max);
prbandit_snssai oai_snssai(const NR_UE_info_t *ue);

static inline bool oai_connected(const NR_UE_info_t *ue) {
#if OAI_MSG4_FLAG
  return ue->Msg4_ACKed;
#else
  (void)ue; /* those in random access are in a list of their own */
  return true;
#endif
}

#endif
