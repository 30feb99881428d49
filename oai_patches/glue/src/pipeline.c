/* The scheduler of release 2.4 and later: a pipeline of stages that OAI calls by pointers. Ours takes the place of
 * the allocation stage of each direction (stage.h). The pre-processors, which run the pipeline, are hooked as well:
 * they tell that an NR slot begins, and which NR slots had nothing to allocate. All of it is in the scheduler's
 * thread, under its lock. */
#define _GNU_SOURCE
#include <dlfcn.h>

#include "oai.h"

#if MAX_MOBILES_PER_GNB > PASSES_MAX_UES
#error "more UEs than the passes are made for"
#endif

static oai_glue *glue_of; /* the one that the hooks are of */

enum { DL_PRE_PROCESSOR, UL_PRE_PROCESSOR, DL_RB_ALLOC, UL_RB_ALLOC };
static hook hooks[4];

static uint32_t stages_run[2]; /* NR slots that were shared out in this call of a pre-processor */

/* Where OAI divides the PRBs itself, from the very NR slot on, nothing is shared out here. */
static bool ours(const oai_glue *glue, const gNB_MAC_INST *mac) {
  return mac == glue->mac && !glue->aside && oai_in_charge(mac) == NULL;
}

static stage_cell cell_of(oai_glue *glue, prbandit_direction direction, int min_prb) {
  return (stage_cell){.agent = glue->agent, .direction = direction, .n_prb = glue->n_prb,
                      .min_prb = (uint16_t)min_prb, .turn = &glue->turns[direction]};
}

/* ---- downlink --------------------------------------------------------------------------------------------- */

static void read_dl(const void *candidate, stage_candidate *to) {
  const nr_dl_candidate_t *c = candidate;
  *to = (stage_candidate){
      .rnti = c->rnti,
      .snssai = oai_snssai(c->UE), /* as in the reports: the candidate's own is another's with several bearers */
      .reach = {(uint16_t)c->bwp_start, (uint16_t)c->bwp_size},
      .symbols = c->alloc_slbitmap,
      .retx_prb = c->is_retx ? (uint16_t)c->retx_rbSize : 0,
      .dropped = c->skipped,
      /* without data a timing advance or another control element waits */
      .signals = c->pending_bytes == 0 || c->pending_bytes_per_lcid[1] > 0 || c->pending_bytes_per_lcid[2] > 0,
  };
}

static prbandit_range grant_dl(const void *candidate) {
  const nr_dl_candidate_t *c = candidate;
  const int size = c->scheduled ? c->sched_pdsch.rbSize : 0;
  return (prbandit_range){(uint16_t)(c->bwp_start + c->sched_pdsch.rbStart), (uint16_t)size};
}

static void allocate_dl(void *context, void *candidates, uint32_t n, uint16_t *map, uint32_t max_grants,
                        uint32_t n_free) {
  nr_dl_candidate_t *first = candidates;
  nr_dl_sched_params_t params = *(const nr_dl_sched_params_t *)context;
  params.vrb_map[first->alloc_beam_idx] = map;
  params.max_num_ue = (int)max_grants;
  if (n_free > 0)
    params.n_rb_avail[first->alloc_beam_idx] = (int)n_free;
  ((nr_dl_rb_alloc_fn)hooks[DL_RB_ALLOC].original)(&params, first, (int)n);
}

static int hooked_dl_rb_alloc(const nr_dl_sched_params_t *params, nr_dl_candidate_t *candidates, int n) {
  static const stage_gnb dl = {sizeof(nr_dl_candidate_t), read_dl, grant_dl, allocate_dl};
  oai_glue *glue = glue_of;
  if (!ours(glue, params->mac) || n <= 0 || params->max_num_ue <= 0)
    return ((nr_dl_rb_alloc_fn)hooks[DL_RB_ALLOC].original)(params, candidates, n);
  const stage_cell cell = cell_of(glue, PRBANDIT_DL, OAI_DL_MIN_PRB);
  stages_run[PRBANDIT_DL]++;
  return (int)stage_run(&dl, (void *)params, &cell, candidates, (uint32_t)n, params->vrb_map[candidates->alloc_beam_idx],
                        (uint32_t)params->max_num_ue, &glue->faults);
}

static void hooked_dl(gNB_MAC_INST *mac, post_process_pdsch_t *pdsch) {
  const nr_pp_impl_dl original = (nr_pp_impl_dl)hooks[DL_PRE_PROCESSOR].original;
  oai_glue *glue = glue_of;
  if (!ours(glue, mac)) {
    original(mac, pdsch);
    return;
  }
  oai_begin_slot(glue, pdsch->frame, pdsch->slot);
  stages_run[PRBANDIT_DL] = 0;
  original(mac, pdsch);
  const stage_cell cell = cell_of(glue, PRBANDIT_DL, OAI_DL_MIN_PRB);
  if (stages_run[PRBANDIT_DL] == 0)
    stage_idle(&cell);
}

/* ---- uplink ----------------------------------------------------------------------------------------------- */

static frame_t ul_frame; /* of the UL slot that is shared out */

static void read_ul(const void *candidate, stage_candidate *to) {
  const nr_ul_candidate_t *c = candidate;
  const NR_UE_sched_ctrl_t *ctrl = &c->UE->UE_sched_ctrl;
  *to = (stage_candidate){
      .rnti = c->rnti,
      .snssai = oai_snssai(c->UE), /* as in the reports: the candidate's own is another's with several bearers */
      .reach = {(uint16_t)c->bwp_start, (uint16_t)c->bwp_size},
      .symbols = c->alloc_slbitmap,
      .retx_prb = c->is_retx ? (uint16_t)c->retx_rbSize : 0,
      .dropped = c->skipped,
      .signals = ctrl->SR || stage_silent((uint32_t)ul_frame, (uint32_t)ctrl->last_ul_frame,
                                          glue_of->mac->ulsch_max_frame_inactivity),
  };
}

static prbandit_range grant_ul(const void *candidate) {
  const nr_ul_candidate_t *c = candidate;
  const int size = c->scheduled ? c->sched_pusch.rbSize : 0;
  return (prbandit_range){(uint16_t)(c->bwp_start + c->sched_pusch.rbStart), (uint16_t)size};
}

static void allocate_ul(void *context, void *candidates, uint32_t n, uint16_t *map, uint32_t max_grants,
                        uint32_t n_free) {
  nr_ul_candidate_t *first = candidates;
  nr_ul_sched_params_t params = *(const nr_ul_sched_params_t *)context;
  params.vrb_map_UL[first->alloc_beam_idx] = map;
  params.max_num_ue = (int)max_grants;
  if (n_free > 0)
    params.n_rb_avail[first->alloc_beam_idx] = (int)n_free;
  ((nr_ul_rb_alloc_fn)hooks[UL_RB_ALLOC].original)(&params, first, (int)n);
}

static int hooked_ul_rb_alloc(const nr_ul_sched_params_t *params, nr_ul_candidate_t *candidates, int n) {
  static const stage_gnb ul = {sizeof(nr_ul_candidate_t), read_ul, grant_ul, allocate_ul};
  oai_glue *glue = glue_of;
  if (!ours(glue, params->mac) || n <= 0 || params->max_num_ue <= 0)
    return ((nr_ul_rb_alloc_fn)hooks[UL_RB_ALLOC].original)(params, candidates, n);
  const stage_cell cell = cell_of(glue, PRBANDIT_UL, params->min_rb);
  stages_run[PRBANDIT_UL]++;
  ul_frame = params->frame;
  return (int)stage_run(&ul, (void *)params, &cell, candidates, (uint32_t)n,
                        params->vrb_map_UL[candidates->alloc_beam_idx], (uint32_t)params->max_num_ue, &glue->faults);
}

/* UL slots from `from` up to, but not with, `to`. */
static uint32_t ul_slots(const oai_glue *glue, fsn_t from, fsn_t to) {
  const int per_frame = glue->slots_per_frame, all = 1024 * per_frame;
  const int slots = ((to.f - from.f) * per_frame + to.s - from.s + all) % all;
  uint32_t n = 0;
  for (int k = 0; k < slots && k < per_frame; k++)
    n += is_ul_slot((from.s + k) % per_frame, &glue->mac->frame_structure);
  return n;
}

static void hooked_ul(gNB_MAC_INST *mac, post_process_pusch_t *pusch) {
  const nr_pp_impl_ul original = (nr_pp_impl_ul)hooks[UL_PRE_PROCESSOR].original;
  oai_glue *glue = glue_of;
  if (!ours(glue, mac)) {
    original(mac, pusch);
    return;
  }
  oai_begin_slot(glue, pusch->frame, pusch->slot);
  const fsn_t before = mac->ul_next;
  stages_run[PRBANDIT_UL] = 0;
  original(mac, pusch);
  const stage_cell cell = cell_of(glue, PRBANDIT_UL, glue->ul_min_prb);
  for (uint32_t n = ul_slots(glue, before, mac->ul_next); n > stages_run[PRBANDIT_UL]; n--)
    stage_idle(&cell);
}

/* ---- in the place of OAI's own ---------------------------------------------------------------------------- */

/* OAI's own slicing as allocation stages (upstream's slice_prb_allocator). */
static const char *const slicing_names[] = {"nr_dl_slice_proportional_fair", "nr_ul_slice_proportional_fair"};
static void *slicing[2];

const char oai_scheduler[] = "pipeline";

uint32_t oai_hooks(oai_glue *glue, hook **out) {
  gNB_MAC_INST *mac = glue->mac;
  glue_of = glue;
  hooks[DL_PRE_PROCESSOR] = (hook){"DL pre-processor", (void **)&mac->pre_processor_dl, (void *)hooked_dl, NULL};
  hooks[UL_PRE_PROCESSOR] = (hook){"UL pre-processor", (void **)&mac->pre_processor_ul, (void *)hooked_ul, NULL};
  hooks[DL_RB_ALLOC] = (hook){"DL allocation stage", (void **)&mac->dl_rb_alloc, (void *)hooked_dl_rb_alloc, NULL};
  hooks[UL_RB_ALLOC] = (hook){"UL allocation stage", (void **)&mac->ul_rb_alloc, (void *)hooked_ul_rb_alloc, NULL};
  for (int i = 0; i < 2; i++)
    slicing[i] = dlsym(RTLD_DEFAULT, slicing_names[i]);
  *out = hooks;
  return sizeof hooks / sizeof *hooks;
}

static bool is_slicing(const hook *stage, const void *policy) {
  const void *now = *stage->at;
  return policy != NULL && (now == policy || (now == stage->ours && stage->original == policy));
}

const char *oai_in_charge(const gNB_MAC_INST *mac) {
#if OAI_DL_SLICE_POLICY
  if (mac->dl_slice_policy_enabled && mac->dl_slice_policy_count > 0)
    return "OAI's own DL slice policies (E2SM-RC) are enabled";
#else
  (void)mac;
#endif
  if (is_slicing(&hooks[DL_RB_ALLOC], slicing[0]) || is_slicing(&hooks[UL_RB_ALLOC], slicing[1]))
    return "OAI's own slicing is the allocation stage";
  return NULL;
}
