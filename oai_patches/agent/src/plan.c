#include "plan.h"

#include <stdio.h>
#include <string.h>

/* S-NSSAIs compare as one number; 0 is none. */
static uint32_t snssai_key(prbandit_snssai s) {
  return s.sst ? (uint32_t)s.sst << 24 | (s.sd & PRBANDIT_NO_SD) : 0;
}

/* FNV-1a. A name that is too long hashes by its beginning and then equals none. */
static uint32_t hash(const char *name) {
  uint32_t h = 2166136261u;
  for (int i = 0; i < PRBANDIT_NAME_SIZE && name[i]; i++)
    h = (h ^ (uint8_t)name[i]) * 16777619u;
  return h ^ h >> 16;
}

static uint32_t range_of_slice(const plan *p, const char *slice) {
  uint32_t i = 0;
  while (i < p->n_ranges - 1 && strcmp(p->slices[i], slice) != 0)
    i++;
  return i;
}

static uint32_t stack(prbandit_range *ranges, const link_quotas *quotas, prbandit_direction direction,
                      uint32_t min_prb) {
  uint32_t next = 0;
  for (uint32_t i = 0; i < quotas->n_quotas; i++) {
    const prbandit_ran_SliceQuota *q = &quotas->quotas[i];
    uint32_t prb = direction == PRBANDIT_UL ? q->ul_prb : q->dl_prb;
    ranges[i].start = (uint16_t)next;
    ranges[i].size = (uint16_t)(prb < min_prb ? 0 : prb);
    next += ranges[i].size;
  }
  return next;
}

bool plan_build(plan *p, const link_quotas *quotas, const prbandit_config *config, const prbandit_cell *cell,
                char *why, size_t why_size) {
  memset(p, 0, sizeof *p);
  p->n_rows = 1;
  if (quotas->n_quotas == 0)
    return true;
  uint32_t last = quotas->n_quotas;
  for (prbandit_direction d = PRBANDIT_UL; d <= PRBANDIT_DL; d++) {
    uint32_t used = stack(p->ranges[d], quotas, d, cell->min_prb);
    if (used > cell->n_prb) {
      snprintf(why, why_size, "%u %s PRB in all on a carrier of %u", used, d == PRBANDIT_UL ? "UL" : "DL",
               cell->n_prb);
      return false;
    }
    p->ranges[d][last] = (prbandit_range){(uint16_t)used, (uint16_t)(cell->n_prb - used)};
  }
  p->n_ranges = p->n_rows = last + 1;
  for (uint32_t i = 0; i < last; i++)
    memcpy(p->slices[i], quotas->quotas[i].slice, PRBANDIT_NAME_SIZE);
  for (uint32_t i = 0; i < config->n_slices; i++) {
    p->snssais[i].key = snssai_key(config->slices[i].snssai);
    p->snssais[i].range = (uint8_t)range_of_slice(p, config->slices[i].slice);
  }
  p->n_snssais = config->n_slices;
  for (uint32_t i = 0; i < quotas->n_bindings; i++) {
    uint32_t at = hash(quotas->bindings[i].ue_id) % MEMBER_TABLE;
    while (p->members[at].ue_id[0])
      at = (at + 1) % MEMBER_TABLE;
    memcpy(p->members[at].ue_id, quotas->bindings[i].ue_id, PRBANDIT_NAME_SIZE);
    p->members[at].range = (uint8_t)range_of_slice(p, quotas->bindings[i].slice);
  }
  return true;
}

uint32_t plan_range_of(const plan *p, const char *ue_id, prbandit_snssai snssai) {
  if (p->n_ranges == 0)
    return 0;
  uint32_t key = snssai_key(snssai);
  for (uint32_t i = 0; key && i < p->n_snssais; i++)
    if (p->snssais[i].key == key)
      return p->snssais[i].range;
  /* Half of the table is free, so the search ends. */
  for (uint32_t at = hash(ue_id) % MEMBER_TABLE; p->members[at].ue_id[0]; at = (at + 1) % MEMBER_TABLE)
    if (strncmp(p->members[at].ue_id, ue_id, PRBANDIT_NAME_SIZE) == 0)
      return p->members[at].range;
  return p->n_ranges - 1;
}

const char *slice_name_of(const prbandit_config *config, const link_quotas *bound, const char *ue_id,
                          prbandit_snssai snssai) {
  uint32_t key = snssai_key(snssai);
  for (uint32_t i = 0; key && i < config->n_slices; i++)
    if (snssai_key(config->slices[i].snssai) == key)
      return config->slices[i].slice;
  for (uint32_t i = 0; i < bound->n_bindings; i++)
    if (strncmp(bound->bindings[i].ue_id, ue_id, PRBANDIT_NAME_SIZE) == 0)
      return bound->bindings[i].slice;
  return "";
}
