/* Sixteen UEs in three slices and one round of every hot call, for the trap and the benchmark. */
#ifndef SCHEDULER_H
#define SCHEDULER_H

#include "check.h"
#include "hot.h"

enum { SOME_UES = 16 };
static const prbandit_snssai NO_SNSSAI = {0, PRBANDIT_NO_SD};
static char ue_ids[SOME_UES][PRBANDIT_NAME_SIZE];
static hot_side hot;

static uint32_t fill_some(void *context, prbandit_ue *ues, uint32_t max) {
  (void)context, (void)max;
  for (uint32_t i = 0; i < SOME_UES; i++) {
    prbandit_ue *ue = &ues[i];
    ue->rnti = (uint16_t)(0x4601 + i);
    memcpy(ue->ue_id, ue_ids[i], sizeof ue->ue_id);
    ue->snssai = NO_SNSSAI;
    ue->ul = (prbandit_direction_state){20, 1, 1, 0.1f, 1000 + i, 2000 + i, 3000 + i};
    ue->dl = ue->ul;
    ue->cqi = 15;
    ue->snr_db = 30;
    ue->five_qi = 80;
    ue->priority_level = 68;
    ue->n_channels = 2;
    ue->channels[0] = (prbandit_channel){1, 30};
    ue->channels[1] = (prbandit_channel){4, 1000 + i};
  }
  return SOME_UES;
}

static void hand_over_some(uint64_t id, int64_t lease_ns) {
  static const prbandit_cell cell = {106, 5, 30, {5, 1, 10, 2, 3}};
  static const prbandit_config config = {.n_slices = 3, .slices = {{"ar", {1, 1}}, {"mar", {1, 2}}, {"vr", {1, 3}}}};
  static link_quotas q = {.n_quotas = 3, .quotas = {{"ar", 30, 30}, {"mar", 20, 20}, {"vr", 40, 40}}};
  char why[64];
  q.n_bindings = SOME_UES;
  for (uint32_t i = 0; i < SOME_UES; i++) {
    snprintf(ue_ids[i], sizeof ue_ids[i], "imsi-0010100000000%02u", i);
    strcpy(q.bindings[i].ue_id, ue_ids[i]);
    strcpy(q.bindings[i].slice, q.quotas[i % 3].slice);
  }
  plan *p = hot_next_plan(&hot);
  CHECK(plan_build(p, &q, &config, &cell, why, sizeof why));
  p->id = id;
  p->expires = boottime_ns() + lease_ns;
  hot_hand_over(&hot);
}

#endif
