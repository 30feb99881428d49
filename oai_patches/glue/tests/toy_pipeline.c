#include "toy_pipeline.h"

#include "check.h"

hot_side toy_hot;
static uint32_t turns[2];

/* ---- the agent's calls, on its inner parts ------------------------------------------------------------------ */

uint32_t prbandit_ranges(const prbandit_agent *agent, prbandit_direction direction, const prbandit_range **ranges) {
  (void)agent;
  return hot_ranges(&toy_hot, direction, ranges);
}

uint32_t prbandit_slice_of(const prbandit_agent *agent, uint16_t rnti, const char *ue_id, prbandit_snssai snssai) {
  (void)agent, (void)rnti;
  return hot_slice_of(&toy_hot, ue_id, snssai);
}

void prbandit_used(prbandit_agent *agent, prbandit_direction direction, uint32_t range, uint32_t new_prb,
                   uint32_t retx_prb) {
  (void)agent;
  hot_used(&toy_hot, direction, range, new_prb, retx_prb);
}

void prbandit_widened(prbandit_agent *agent, prbandit_direction direction, uint32_t range, uint32_t prb) {
  (void)agent, (void)direction, (void)range;
  hot_widened(&toy_hot, prb);
}

/* ---- the controller's part ---------------------------------------------------------------------------------- */

void toy_hand_over(const uint16_t *ul_prb, const uint16_t *dl_prb, uint32_t n, const uint16_t *bound,
                   const uint32_t *slice_of, uint32_t n_bound, int64_t lease_ns) {
  static const prbandit_cell cell = {PASSES_MAX_PRB, 5, 30, {5, 1, 10, 2, 3}};
  static prbandit_config config;
  static link_quotas q;
  memset(&q, 0, sizeof q);
  config.n_slices = n;
  q.n_quotas = n;
  for (uint32_t i = 0; i < n; i++) {
    snprintf(q.quotas[i].slice, sizeof q.quotas[i].slice, "slice-%u", i);
    strcpy(config.slices[i].slice, q.quotas[i].slice);
    config.slices[i].snssai = (prbandit_snssai){1, i + 1};
    q.quotas[i].ul_prb = ul_prb[i];
    q.quotas[i].dl_prb = dl_prb[i];
  }
  q.n_bindings = n_bound;
  for (uint32_t i = 0; i < n_bound; i++) {
    stage_ue_id(bound[i], q.bindings[i].ue_id);
    snprintf(q.bindings[i].slice, sizeof q.bindings[i].slice, "slice-%u", slice_of[i]);
  }
  char why[128];
  plan *p = hot_next_plan(&toy_hot);
  CHECK(plan_build(p, &q, &config, &cell, why, sizeof why));
  p->expires = boottime_ns() + lease_ns;
  hot_hand_over(&toy_hot);
}

void toy_quotas(const uint16_t *ul_prb, const uint16_t *dl_prb, uint32_t n, const uint16_t *bound,
                const uint32_t *slice_of, uint32_t n_bound) {
  hot_init(&toy_hot);
  toy_hand_over(ul_prb, dl_prb, n, bound, slice_of, n_bound, 3600 * NS_PER_S);
  hot_nr_slot(&toy_hot, 0, 0, NULL, NULL);
  hot_receipt_read(&toy_hot);
}

void toy_use(uint32_t range, prbandit_direction direction, use_sum *use) {
  *use = toy_hot.use[range][direction];
  memset(&toy_hot.use[range][direction], 0, sizeof *use);
}

uint64_t toy_widened(void) {
  return atomic_load(&toy_hot.widened_prb);
}

/* ---- the gNB ------------------------------------------------------------------------------------------------ */

static prbandit_range free_run(const toy_candidate *c, const uint16_t *map, uint32_t at_most, bool first) {
  prbandit_range best = {0, 0};
  uint16_t size = 0;
  for (uint32_t k = 0; k < c->bwp_size; k++) {
    size = map[c->bwp_start + k] & c->symbols ? 0 : size + 1;
    if (size > best.size)
      best = (prbandit_range){(uint16_t)(k + 1 - size), size};
    if (first && best.size >= at_most)
      break;
  }
  return best;
}

static bool commit(toy_candidate *c, uint16_t *map, uint32_t start, uint32_t size) {
  c->scheduled = true;
  c->start = (uint16_t)start;
  c->size = (uint16_t)size;
  for (uint32_t k = 0; k < size && c->bwp_start + start + k < PASSES_MAX_PRB; k++)
    map[c->bwp_start + start + k] |= c->symbols;
  return true;
}

static bool give(const toy_gnb *gnb, toy_candidate *c, uint16_t *map, uint16_t min_prb, int phase) {
  const int mine = c->retx_prb > 0 ? 0 : c->want_prb == 0 ? 1 : 2;
  if (c->skipped || mine != phase)
    return false;
  const uint16_t least = phase == 0 ? c->retx_prb : min_prb;
  prbandit_range run = free_run(c, map, least, phase < 2);
  if (phase == 2 && gnb->fault == TOY_IGNORES_THE_MAP)
    run = (prbandit_range){0, c->bwp_size};
  if (run.size < least)
    return false;
  const uint16_t want = c->want_prb > min_prb ? c->want_prb : min_prb;
  uint32_t size = phase < 2 ? least : want < run.size ? want : run.size;
  if (phase == 2 && gnb->fault == TOY_TAKES_TOO_MUCH)
    size = size + 10u + run.start < c->bwp_size ? size + 10u : (uint32_t)(c->bwp_size - run.start);
  return commit(c, map, run.start, size);
}

typedef struct {
  toy_gnb *gnb;
  uint16_t min_prb;
} toy_call;

static void allocate(void *context, void *candidates, uint32_t n, uint16_t *map, uint32_t max_grants,
                     uint32_t n_free) {
  const toy_call *call = context;
  toy_gnb *gnb = call->gnb;
  toy_candidate *c = candidates;
  uint32_t given = 0;
  gnb->calls++;
  gnb->map = map;
  gnb->n_free = n_free;
  gnb->max_grants = max_grants;
  gnb->most_candidates = n > gnb->most_candidates ? n : gnb->most_candidates;
  for (uint32_t i = 0; i < n; i++)
    c[i].calls++;
  for (int phase = 0; phase < 3; phase++)
    for (uint32_t i = 0; i < n && (given < max_grants || gnb->fault == TOY_GRANTS_TOO_OFTEN); i++)
      given += give(gnb, &c[i], map, call->min_prb, phase);
}

static void read_candidate(const void *candidate, stage_candidate *to) {
  const toy_candidate *c = candidate;
  *to = (stage_candidate){.rnti = c->rnti, .snssai = {c->sst, c->sd}, .reach = {c->bwp_start, c->bwp_size},
                          .symbols = c->symbols, .retx_prb = c->retx_prb, .dropped = c->skipped,
                          .signals = c->signals};
}

static prbandit_range grant(const void *candidate) {
  const toy_candidate *c = candidate;
  return (prbandit_range){(uint16_t)(c->bwp_start + c->start), c->scheduled ? c->size : 0};
}

uint32_t toy_run(toy_gnb *gnb, prbandit_direction direction, uint16_t n_prb, uint16_t min_prb, toy_candidate *candidates,
                 uint32_t n, uint16_t *map, uint32_t max_grants, uint32_t *outside) {
  static const stage_gnb toy = {sizeof(toy_candidate), read_candidate, grant, allocate};
  const stage_cell cell = {NULL, direction, n_prb, min_prb, &turns[direction]};
  stage_faults faults = {0};
  toy_call call = {gnb, min_prb};
  const uint32_t grants = stage_run(&toy, &call, &cell, candidates, n, map, max_grants, &faults);
  *outside = faults.outside;
  return grants;
}

void toy_idle(prbandit_direction direction) {
  const stage_cell cell = {NULL, direction, PASSES_MAX_PRB, 5, &turns[direction]};
  stage_idle(&cell);
}
