/* The one place that sees OAI's headers. What differs between its versions is in oai_version.h, which CMake
 * makes of versions.json. */
#ifndef PRBANDIT_OAI_H
#define PRBANDIT_OAI_H

#include "oai_version.h"

#include "NR_MAC_gNB/nr_mac_gNB.h"
#include "NR_MAC_gNB/mac_proto.h"
#include "common/ran_context.h"
#include "executables/softmodem-common.h"

#include "passes.h"
#include "prbandit_agent.h"

#define OAI_UL_MAP_SLOTS 64 /* most NR slots of OAI's UL map that are dealt with */

typedef struct {
  gNB_MAC_INST *mac;
  prbandit_agent *agent;
  nr_pp_impl_dl dl; /* OAI's own pre-processors */
  nr_pp_impl_ul ul;
  uint16_t n_prb, ul_min_prb, slots_per_frame;
  uint32_t calls;    /* NR slots seen */
  uint32_t turns[2]; /* NR slots shared out, by prbandit_direction */
} oai_glue;

/* scheduler.c: what takes the place of the pre-processors. */
void oai_glue_dl(oai_glue *glue, frame_t frame, int slot);
#if OAI_UL_NEXT
void oai_glue_ul(oai_glue *glue, post_process_pusch_t *pusch);
#else
bool oai_glue_ul(oai_glue *glue, frame_t frame, int slot);
#endif

/* snapshot.c: the state of each UE. */
uint32_t oai_snapshot(void *glue, prbandit_ue *ues, uint32_t max);
void oai_ue_id(uint16_t rnti, char id[PRBANDIT_NAME_SIZE]);
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
