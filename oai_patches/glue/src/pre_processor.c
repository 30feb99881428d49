/* The scheduler of May 2024 and September 2025: OAI's pre-processors, called once for each pass of passes.h. While
 * the call runs, the map of symbols a PRB has only the pass's PRBs free, and only the pass's UEs can be scheduled.
 * All of it is in the scheduler's thread, under its lock. */
#include "oai.h"

#define ALL_SYMBOLS 0x3fff

typedef struct {
  oai_glue *glue;
  uint16_t *map;         /* MAX_BWP_SIZE symbol masks */
  uint16_t symbols;      /* to mark PRBs outside the window with */
  int frame, slot;       /* DL: of the call */
  bool ul_slot;          /* the pre-processor found a UL slot */
#if OAI_UL_NEXT
  post_process_pusch_t *pusch;
  fsn_t target;
#endif
} call;

static passes_ue plan[PASSES_MAX_UES];

static oai_glue *glue_of; /* the one that the hooks are of */

enum { DL_PRE_PROCESSOR, UL_PRE_PROCESSOR };
static hook hooks[2];

#define ORIGINAL_DL ((nr_pp_impl_dl)hooks[DL_PRE_PROCESSOR].original)
#define ORIGINAL_UL ((nr_pp_impl_ul)hooks[UL_PRE_PROCESSOR].original)

/* ---- the UEs ---------------------------------------------------------------------------------------------- */

typedef struct {
  NR_UE_info_t *ue[MAX_MOBILES_PER_GNB];
  uint32_t n;
} hidden_ues;

/* OAI passes over a UE whose UL has failed before it computes anything for it, and reads the flag under the
 * scheduler's lock alone. Its list must stay whole: RRC re-establishment looks a UE up there without the lock,
 * and ends the gNB when there is none. */
static hidden_ues hide_others(const oai_glue *glue, passes_ue *const *ues, uint32_t n) {
  hidden_ues hidden = {.n = 0};
  for (NR_UE_info_t **ue = glue->mac->OAI_UES; *ue != NULL; ue++) {
    bool *failure = &(*ue)->UE_sched_ctrl.ul_failure;
    bool member = false;
    for (uint32_t i = 0; i < n; i++)
      member = member || ues[i]->ue == *ue;
    if (member || *failure)
      continue;
    *failure = true;
    hidden.ue[hidden.n++] = *ue;
  }
  return hidden;
}

static void show_again(const hidden_ues *hidden) {
  for (uint32_t i = 0; i < hidden->n; i++)
    hidden->ue[i]->UE_sched_ctrl.ul_failure = false;
}

static uint32_t range_of(const oai_glue *glue, const NR_UE_info_t *ue, uint32_t n_ranges) {
  char id[PRBANDIT_NAME_SIZE];
  stage_ue_id(ue->rnti, id);
  const uint32_t range = prbandit_slice_of(glue->agent, ue->rnti, id, oai_snssai(ue));
  return range < n_ranges ? range : n_ranges - 1;
}

/* ---- the map of free PRBs --------------------------------------------------------------------------------- */

/* Taken PRBs. Symbols that are taken on every PRB of the carrier (CSI-RS, SRS) are no reason: OAI has a shorter
 * time-domain allocation for such NR slots. */
static void read_busy(const oai_glue *glue, const uint16_t *map, const uint16_t *blacklist, uint16_t symbols,
                      bool *busy) {
  uint16_t everywhere = ALL_SYMBOLS;
  for (int prb = 0; prb < glue->n_prb; prb++)
    everywhere &= map[prb];
  for (int prb = 0; prb < glue->n_prb; prb++)
    busy[prb] = (map[prb] & symbols & ~everywhere) != 0 || (blacklist != NULL && blacklist[prb] != 0);
}

static void block(const oai_glue *glue, uint16_t *map, uint16_t symbols, prbandit_range window, uint16_t *added) {
  for (int prb = 0; prb < glue->n_prb; prb++) {
    const bool inside = prb >= window.start && prb < window.start + window.size;
    added[prb] = inside ? 0 : symbols & ~map[prb];
    map[prb] |= added[prb];
  }
}

/* Only what block() set: what OAI has allocated meanwhile stays. */
static void unblock(const oai_glue *glue, uint16_t *map, const uint16_t *added) {
  for (int prb = 0; prb < glue->n_prb; prb++)
    map[prb] &= ~added[prb];
}

static void take(const oai_glue *glue, bool *busy, int start, int size) {
  for (int prb = start; prb < start + size && prb < glue->n_prb; prb++)
    busy[prb] = true;
}

/* ---- what a UE needs and may have ------------------------------------------------------------------------- */

static prbandit_range dl_reach(const oai_glue *glue, NR_UE_info_t *ue) {
  const prbandit_range carrier = {0, glue->n_prb};
#if OAI_LC_ARRAYS
  const NR_UE_DL_BWP_t *bwp = &ue->current_DL_BWP;
  const NR_SearchSpace_t *ss = ue->UE_sched_ctrl.search_space;
  uint16_t start = bwp->BWPStart, size = bwp->BWPSize;
  /* TS 38.214 5.1.2.2.2: DCI format 1_0 in a common search space reaches CORESET 0 or the initial BWP. */
  if (ss != NULL && ss->searchSpaceType->present == NR_SearchSpace__searchSpaceType_PR_common &&
      bwp->dci_format == NR_DL_DCI_FORMAT_1_0) {
    const bool coreset0 = glue->mac->cset0_bwp_size != 0;
    start += coreset0 ? glue->mac->cset0_bwp_start : ue->sc_info.initial_dl_BWPStart;
    size = coreset0 ? glue->mac->cset0_bwp_size : ue->sc_info.initial_dl_BWPSize;
  }
  return passes_overlap(carrier, (prbandit_range){start, size});
#else
  const bwp_info_t bwp = get_pdsch_bwp_start_size(glue->mac, ue);
  return passes_overlap(carrier, (prbandit_range){bwp.bwpStart, bwp.bwpSize});
#endif
}

static prbandit_range ul_reach(const oai_glue *glue, NR_UE_info_t *ue) {
  const prbandit_range carrier = {0, glue->n_prb};
#if OAI_UL_NEXT
  const bwp_info_t bwp = get_pusch_bwp_start_size(ue);
  return passes_overlap(carrier, (prbandit_range){bwp.bwpStart, bwp.bwpSize});
#else
  return passes_overlap(carrier,
                        (prbandit_range){ue->current_UL_BWP.BWPStart, ue->current_UL_BWP.BWPSize});
#endif
}

/* Fewer layers than last time carry the same transport block on more PRBs. How many exactly, OAI finds by trying. */
static uint16_t dl_retx_prb(const NR_UE_sched_ctrl_t *ctrl, prbandit_range reach) {
  const int pid = ctrl->retrans_dl_harq.head;
  if (pid < 0 || ctrl->ul_failure)
    return 0;
  const NR_sched_pdsch_t *last = &ctrl->harq_processes[pid].sched_pdsch;
  const uint32_t before = last->nrOfLayers, now = ctrl->sched_pdsch.nrOfLayers;
  if (now == 0 || now >= before)
    return last->rbSize;
  const uint32_t prb = last->rbSize * before / now + 2;
  return (uint16_t)(prb < reach.size ? prb : reach.size);
}

static uint32_t plan_dl(const oai_glue *glue, uint32_t n_ranges) {
  uint32_t n = 0;
  for (NR_UE_info_t **p = glue->mac->OAI_UES; *p != NULL && n < PASSES_MAX_UES; p++) {
    const NR_UE_sched_ctrl_t *ctrl = &(*p)->UE_sched_ctrl;
    if (!oai_connected(*p) || ctrl->coreset == NULL)
      continue;
    const bool able = !ctrl->ul_failure;
    const prbandit_range reach = dl_reach(glue, *p);
    plan[n++] = (passes_ue){
        .ue = *p,
        .range = range_of(glue, *p, n_ranges),
        .reach = reach,
        .retx_prb = dl_retx_prb(ctrl, reach),
        .waits = able && (ctrl->num_total_bytes > 0 || ctrl->ta_apply),
        .signals = able && (ctrl->rlc_status[1].bytes_in_buffer > 0 || ctrl->rlc_status[2].bytes_in_buffer > 0 ||
                            ctrl->ta_apply),
    };
  }
  return n;
}

static uint32_t plan_ul(const oai_glue *glue, int frame, uint32_t n_ranges) {
  const uint32_t limit = glue->mac->ulsch_max_frame_inactivity;
  uint32_t n = 0;
  for (NR_UE_info_t **p = glue->mac->OAI_UES; *p != NULL && n < PASSES_MAX_UES; p++) {
    const NR_UE_sched_ctrl_t *ctrl = &(*p)->UE_sched_ctrl;
    if (!oai_connected(*p) || ctrl->coreset == NULL)
      continue;
    const int retx = ctrl->retrans_ul_harq.head;
    const bool able = !ctrl->ul_failure;
    const bool has_data = ctrl->estimated_ul_buffer > ctrl->sched_ul_bytes;
    const uint32_t since = (uint32_t)(frame - ctrl->last_ul_frame) & 1023; /* OAI grants to a UE that is silent */
    plan[n++] = (passes_ue){
        .ue = *p,
        .range = range_of(glue, *p, n_ranges),
        .reach = ul_reach(glue, *p),
        .retx_prb = able && retx >= 0 ? ctrl->ul_harq_processes[retx].sched_pusch.rbSize : 0,
        .waits = able && (has_data || ctrl->SR || since >= limit),
        .signals = able && (ctrl->SR || stage_silent((uint32_t)frame, (uint32_t)ctrl->last_ul_frame, limit)),
    };
  }
  return n;
}

static uint32_t max_grants(const oai_glue *glue) {
  const uint32_t by_cce = glue->n_prb / (4 * NR_NB_REG_PER_CCE); /* OAI's own estimate */
  return by_cce < MAX_DCI_CORESET ? by_cce : MAX_DCI_CORESET;
}

static void tell(const oai_glue *glue, prbandit_direction direction, const passes_use *use, uint32_t n_ranges) {
  for (uint32_t i = 0; i < n_ranges; i++) {
    prbandit_used(glue->agent, direction, i, use[i].new_prb, use[i].retx_prb);
    if (use[i].widened_prb > 0)
      prbandit_widened(glue->agent, direction, i, use[i].widened_prb);
  }
}

/* ---- downlink --------------------------------------------------------------------------------------------- */

static bool dl_is_retx(const NR_UE_sched_ctrl_t *ctrl) {
  const int pid = ctrl->sched_pdsch.dl_harq_pid;
  return pid >= 0 && ctrl->harq_processes[pid].round > 0;
}

static int dl_start(const NR_UE_info_t *ue) {
#if OAI_LC_ARRAYS
  return ue->current_DL_BWP.BWPStart + ue->UE_sched_ctrl.sched_pdsch.rbStart;
#else
  return ue->UE_sched_ctrl.sched_pdsch.bwp_info.bwpStart + ue->UE_sched_ctrl.sched_pdsch.rbStart;
#endif
}

static void dl_pass(void *context, passes_ue *const *ues, uint32_t n, prbandit_range window, bool *busy) {
  call *c = context;
  uint16_t added[PASSES_MAX_PRB];
  const hidden_ues hidden = hide_others(c->glue, ues, n);
  block(c->glue, c->map, c->symbols, window, added);
  ORIGINAL_DL(c->glue->mac->Mod_id, c->frame, c->slot);
  unblock(c->glue, c->map, added);
  show_again(&hidden);

  for (uint32_t i = 0; i < n; i++) {
    const NR_UE_info_t *ue = ues[i]->ue;
    const uint16_t size = ue->UE_sched_ctrl.sched_pdsch.rbSize;
    if (size == 0)
      continue;
    *(dl_is_retx(&ue->UE_sched_ctrl) ? &ues[i]->sent_retx_prb : &ues[i]->new_prb) = size;
    take(c->glue, busy, dl_start(ue), size);
  }
}

/* Symbols that PDSCH may use: what follows the longest CORESET of the UEs at hand. */
static uint16_t data_symbols(uint32_t n) {
  long longest = 1;
  for (uint32_t i = 0; i < n; i++) {
    const long duration = ((const NR_UE_info_t *)plan[i].ue)->UE_sched_ctrl.coreset->duration;
    if (duration > longest && duration <= 3)
      longest = duration;
  }
  return ALL_SYMBOLS & ~((1 << longest) - 1);
}

static void dl_unsliced(oai_glue *glue, int frame, int slot) {
  ORIGINAL_DL(glue->mac->Mod_id, frame, slot);
  uint32_t new_prb = 0, retx_prb = 0;
  for (NR_UE_info_t **ue = glue->mac->OAI_UES; *ue != NULL; ue++) {
    const uint16_t size = (*ue)->UE_sched_ctrl.sched_pdsch.rbSize;
    if (size == 0)
      continue;
    *(dl_is_retx(&(*ue)->UE_sched_ctrl) ? &retx_prb : &new_prb) += size;
  }
  prbandit_used(glue->agent, PRBANDIT_DL, 0, new_prb, retx_prb);
}

/* Every call of OAI's DL pre-processor looks into the queues of all UEs, hidden or not; so the plan of the next NR
 * slot knows who waits, whoever was in a pass. */
static void share_dl(oai_glue *glue, frame_t frame, int slot) {
  const prbandit_range *ranges;
  const uint32_t n_ranges = prbandit_ranges(glue->agent, PRBANDIT_DL, &ranges);
  if (n_ranges == 0 || n_ranges > PASSES_MAX_RANGES) {
    dl_unsliced(glue, frame, slot);
    return;
  }
  const uint32_t n = plan_dl(glue, n_ranges);
  call c = {.glue = glue, .map = glue->mac->OAI_DL_MAP, .frame = frame, .slot = slot};
  c.symbols = data_symbols(n);
  bool busy[PASSES_MAX_PRB];
  read_busy(glue, c.map, NULL, c.symbols, busy);
  const passes_slot slot_plan = {.n_prb = glue->n_prb, .min_prb = OAI_DL_MIN_PRB,
                                 .max_grants = max_grants(glue), .turn = &glue->turns[PRBANDIT_DL],
                                 .ranges = ranges, .n_ranges = n_ranges};
  passes_use use[PASSES_MAX_RANGES];
  passes_share(&slot_plan, busy, plan, n, use, dl_pass, &c);
  tell(glue, PRBANDIT_DL, use, n_ranges);
}

/* ---- uplink ----------------------------------------------------------------------------------------------- */

static passes_slot ul_slot_plan(oai_glue *glue, const prbandit_range *ranges, uint32_t n_ranges) {
  return (passes_slot){.n_prb = glue->n_prb, .min_prb = glue->ul_min_prb, .top_is_lost = OAI_UL_TOP_IS_LOST,
                       .blind_pregrant = OAI_UL_BLIND_PREGRANT,
                       .max_grants = max_grants(glue), .turn = &glue->turns[PRBANDIT_UL],
                       .ranges = ranges, .n_ranges = n_ranges};
}

static uint16_t *ul_map(const oai_glue *glue, int frame, int slot) {
  const int index = (frame * glue->slots_per_frame + slot) % glue->mac->vrb_map_UL_size;
  return &glue->mac->OAI_UL_MAP[index * MAX_BWP_SIZE];
}

#if OAI_UL_NEXT

/* One call of the pre-processor goes on to every UL slot that can be reached. Here each call is to allocate in
 * one, `target`: the later ones are blocked as a whole meanwhile. */
static void ul_pass(void *context, passes_ue *const *ues, uint32_t n, prbandit_range window, bool *busy) {
  call *c = context;
  uint16_t added[PASSES_MAX_PRB];
  uint32_t new_before[PASSES_MAX_UES], retx_before[PASSES_MAX_UES];
  for (uint32_t i = 0; i < n; i++) {
    const NR_mac_dir_stats_t *stats = &((const NR_UE_info_t *)ues[i]->ue)->mac_stats.ul;
    new_before[i] = stats->total_rbs;
    retx_before[i] = stats->total_rbs_retx;
  }
  const hidden_ues hidden = hide_others(c->glue, ues, n);
  block(c->glue, c->map, ALL_SYMBOLS, window, added);
  c->glue->mac->ul_next = c->target;
  ORIGINAL_UL(c->glue->mac, c->pusch);
  unblock(c->glue, c->map, added);
  show_again(&hidden);

  uint32_t given = 0;
  for (uint32_t i = 0; i < n; i++) {
    const NR_UE_info_t *ue = ues[i]->ue;
    ues[i]->new_prb = (uint16_t)(ue->mac_stats.ul.total_rbs - new_before[i]);
    ues[i]->sent_retx_prb = (uint16_t)(ue->mac_stats.ul.total_rbs_retx - retx_before[i]);
    given += (uint32_t)ues[i]->new_prb + ues[i]->sent_retx_prb;
  }
  /* the grants start at the window's first PRB and follow each other */
  take(c->glue, busy, window.start, (int)given);
}

static fsn_t later(const oai_glue *glue, fsn_t from, int slots) {
  const int n = glue->slots_per_frame, sum = from.f * n + from.s + slots;
  return (fsn_t){.f = sum / n % 1024, .s = sum % n};
}

static int slots_between(const oai_glue *glue, fsn_t from, fsn_t to) {
  const int all = 1024 * glue->slots_per_frame;
  const int d = ((to.f - from.f) * glue->slots_per_frame + to.s - from.s + all) % all;
  return d < all / 2 ? d : d - all;
}

static uint32_t ul_slots_in(const oai_glue *glue, fsn_t from, fsn_t to) {
  const int slots = slots_between(glue, from, to);
  uint32_t n = 0;
  for (int k = 0; k < slots && k < glue->slots_per_frame; k++)
    n += is_ul_slot(later(glue, from, k).s, &glue->mac->frame_structure);
  return n;
}

static void sum_ul_prb(const oai_glue *glue, uint32_t *new_prb, uint32_t *retx_prb) {
  *new_prb = *retx_prb = 0;
  for (NR_UE_info_t **ue = glue->mac->OAI_UES; *ue != NULL; ue++) {
    *new_prb += (*ue)->mac_stats.ul.total_rbs;
    *retx_prb += (*ue)->mac_stats.ul.total_rbs_retx;
  }
}

static void ul_unsliced(oai_glue *glue, post_process_pusch_t *pusch) {
  const fsn_t before = glue->mac->ul_next;
  uint32_t new_before, retx_before, new_after, retx_after;
  sum_ul_prb(glue, &new_before, &retx_before);
  ORIGINAL_UL(glue->mac, pusch);
  sum_ul_prb(glue, &new_after, &retx_after);
  const uint32_t n = ul_slots_in(glue, before, glue->mac->ul_next);
  const uint32_t new_prb = new_after - new_before, retx_prb = retx_after - retx_before;
  for (uint32_t i = 0; i < n; i++) /* evenly: which slot had which is of no matter without quotas */
    prbandit_used(glue->agent, PRBANDIT_UL, 0, new_prb * (i + 1) / n - new_prb * i / n,
                  retx_prb * (i + 1) / n - retx_prb * i / n);
}

/* Blocks, or gives back, every UL slot after the target that OAI's map holds. */
static void later_slots(const oai_glue *glue, fsn_t now, fsn_t target, bool give_back) {
  static uint16_t saved[OAI_UL_MAP_SLOTS][PASSES_MAX_PRB];
  for (int k = slots_between(glue, now, target) + 1; k < glue->mac->vrb_map_UL_size; k++) {
    const fsn_t slot = later(glue, now, k);
    if (!is_ul_slot(slot.s, &glue->mac->frame_structure))
      continue;
    uint16_t *map = ul_map(glue, slot.f, slot.s);
    const prbandit_range nothing = {0, 0};
    if (give_back)
      unblock(glue, map, saved[k]);
    else
      block(glue, map, ALL_SYMBOLS, nothing, saved[k]);
  }
}

static void share_ul(oai_glue *glue, post_process_pusch_t *pusch) {
  gNB_MAC_INST *mac = glue->mac;
  const frame_structure_t *fs = &mac->frame_structure;
  const prbandit_range *ranges;
  const uint32_t n_ranges = prbandit_ranges(glue->agent, PRBANDIT_UL, &ranges);
  if (n_ranges == 0 || n_ranges > PASSES_MAX_RANGES || !is_dl_slot(pusch->slot, fs)) {
    ul_unsliced(glue, pusch);
    return;
  }
  const fsn_t now = {pusch->frame, pusch->slot};
  const int offset = get_NTN_Koffset(mac->common_channels[0].ServingCellConfigCommon);
  const bool last_dl = now.s % fs->numb_slots_period == fs->period_cfg.num_dl_slots - 1;
  passes_slot slot_plan = ul_slot_plan(glue, ranges, n_ranges);
  fsn_t target = later(glue, now, mac->radio_config.minRXTXTIME + offset);
  if (slots_between(glue, target, mac->ul_next) > 0)
    target = mac->ul_next;

  while (slot_plan.max_grants > 0) {
    while (!is_ul_slot(target.s, fs))
      target = later(glue, target, 1);
    const NR_tda_info_t *tda;
    const int n_tda = get_num_ul_tda(mac, target.s, slots_between(glue, now, target) - offset, &tda);
    if (n_tda == 0)
      break;
    int first_prb = 0, n_prb = glue->n_prb;
    tda = get_best_ul_tda(mac, 0, tda, n_tda, target.f, target.s, &first_prb, &n_prb);
    const uint32_t n = plan_ul(glue, target.f, n_ranges);
    call c = {.glue = glue, .map = ul_map(glue, target.f, target.s), .pusch = pusch, .target = target};
    bool busy[PASSES_MAX_PRB];
    read_busy(glue, c.map, mac->ulprbbl, SL_to_bitmap(tda->startSymbolIndex, tda->nrOfSymbols), busy);
    passes_use use[PASSES_MAX_RANGES];
    later_slots(glue, now, target, false);
    const uint32_t grants = passes_share(&slot_plan, busy, plan, n, use, ul_pass, &c);
    later_slots(glue, now, target, true);
    tell(glue, PRBANDIT_UL, use, n_ranges);
    if (grants == 0 && !last_dl)
      break;
    slot_plan.max_grants -= grants;
    target = later(glue, target, 1);
  }
  mac->ul_next = target;
}

#else

static void ul_pass(void *context, passes_ue *const *ues, uint32_t n, prbandit_range window, bool *busy) {
  call *c = context;
  uint16_t added[PASSES_MAX_PRB];
  const hidden_ues hidden = hide_others(c->glue, ues, n);
  block(c->glue, c->map, ALL_SYMBOLS, window, added);
  c->ul_slot |= ORIGINAL_UL(c->glue->mac->Mod_id, c->frame, c->slot);
  unblock(c->glue, c->map, added);
  show_again(&hidden);

  for (uint32_t i = 0; i < n; i++) {
    const NR_UE_info_t *ue = ues[i]->ue;
    const NR_sched_pusch_t *pusch = &ue->UE_sched_ctrl.sched_pusch;
    *(pusch->ul_harq_pid >= 0 ? &ues[i]->sent_retx_prb : &ues[i]->new_prb) = pusch->rbSize;
    take(c->glue, busy, ue->current_UL_BWP.BWPStart + pusch->rbStart, pusch->rbSize);
  }
}

/* The UL slot that a call in this DL slot allocates in, and its symbols for PUSCH; false where there is none. */
static bool target_slot(const oai_glue *glue, int frame, int slot, int *target_frame, int *target,
                        uint16_t *symbols) {
  gNB_MAC_INST *mac = glue->mac;
  const NR_ServingCellConfigCommon_t *scc = mac->common_channels[0].ServingCellConfigCommon;
  const NR_UE_info_t *first = mac->OAI_UES[0];
  if (first == NULL || first->UE_sched_ctrl.coreset == NULL || first->UE_sched_ctrl.search_space == NULL)
    return false;
  const NR_UE_sched_ctrl_t *ctrl = &first->UE_sched_ctrl;
  NR_PUSCH_TimeDomainResourceAllocationList_t *list =
      get_ul_tdalist(&first->current_UL_BWP, ctrl->coreset->controlResourceSetId,
                     ctrl->search_space->searchSpaceType->present, TYPE_C_RNTI_);
  const int k2 = (int)get_K2(list, get_ul_tda(mac, scc, frame, slot), first->current_UL_BWP.scs);
  *target_frame = (frame + (slot + k2) / glue->slots_per_frame) & 1023;
  *target = (slot + k2) % glue->slots_per_frame;
  const int tda = get_ul_tda(mac, scc, *target_frame, *target);
  if (tda < 0 || tda >= list->list.count)
    return false;
  int start, length;
  SLIV2SL(list->list.array[tda]->startSymbolAndLength, &start, &length);
  *symbols = SL_to_bitmap(start, length);
  return is_xlsch_in_slot(mac->ulsch_slot_bitmap[*target / 64], *target);
}

static bool ul_unsliced(oai_glue *glue, int frame, int slot) {
  const bool ul_slot = ORIGINAL_UL(glue->mac->Mod_id, frame, slot);
  if (!ul_slot)
    return false;
  uint32_t new_prb = 0, retx_prb = 0;
  for (NR_UE_info_t **ue = glue->mac->OAI_UES; *ue != NULL; ue++) {
    const NR_sched_pusch_t *pusch = &(*ue)->UE_sched_ctrl.sched_pusch;
    *(pusch->ul_harq_pid >= 0 ? &retx_prb : &new_prb) += pusch->rbSize;
  }
  prbandit_used(glue->agent, PRBANDIT_UL, 0, new_prb, retx_prb);
  return true;
}

static bool share_ul(oai_glue *glue, frame_t frame, int slot) {
  const prbandit_range *ranges;
  const uint32_t n_ranges = prbandit_ranges(glue->agent, PRBANDIT_UL, &ranges);
  int target_frame, target;
  uint16_t symbols;
  if (n_ranges == 0 || n_ranges > PASSES_MAX_RANGES ||
      !target_slot(glue, frame, slot, &target_frame, &target, &symbols))
    return ul_unsliced(glue, frame, slot);

  const uint32_t n = plan_ul(glue, target_frame, n_ranges);
  call c = {.glue = glue, .map = ul_map(glue, target_frame, target), .frame = frame, .slot = slot};
  bool busy[PASSES_MAX_PRB];
  read_busy(glue, c.map, glue->mac->ulprbbl, symbols, busy);
  const passes_slot slot_plan = ul_slot_plan(glue, ranges, n_ranges);
  passes_use use[PASSES_MAX_RANGES];
  passes_share(&slot_plan, busy, plan, n, use, ul_pass, &c);
  if (c.ul_slot)
    tell(glue, PRBANDIT_UL, use, n_ranges);
  return c.ul_slot;
}

#endif

/* ---- in the place of OAI's own ---------------------------------------------------------------------------- */

#if OAI_UL_NEXT
static void hooked_dl(module_id_t id, frame_t frame, slot_t slot)
#else
static void hooked_dl(module_id_t id, frame_t frame, sub_frame_t slot)
#endif
{
  if (id != glue_of->mac->Mod_id) {
    ORIGINAL_DL(id, frame, slot);
    return;
  }
  oai_begin_slot(glue_of, frame, slot);
  share_dl(glue_of, frame, slot);
}

#if OAI_UL_NEXT
static void hooked_ul(gNB_MAC_INST *mac, post_process_pusch_t *pusch) {
  if (mac != glue_of->mac) {
    ORIGINAL_UL(mac, pusch);
    return;
  }
  oai_begin_slot(glue_of, pusch->frame, pusch->slot);
  share_ul(glue_of, pusch);
}
#else
static bool hooked_ul(module_id_t id, frame_t frame, sub_frame_t slot) {
  if (id != glue_of->mac->Mod_id)
    return ORIGINAL_UL(id, frame, slot);
  oai_begin_slot(glue_of, frame, slot);
  return share_ul(glue_of, frame, slot);
}
#endif

const char oai_scheduler[] = "pre-processor";

uint32_t oai_hooks(oai_glue *glue, hook **out) {
  glue_of = glue;
  hooks[DL_PRE_PROCESSOR] = (hook){"DL pre-processor", (void **)&glue->mac->pre_processor_dl, (void *)hooked_dl, NULL};
  hooks[UL_PRE_PROCESSOR] = (hook){"UL pre-processor", (void **)&glue->mac->pre_processor_ul, (void *)hooked_ul, NULL};
  *out = hooks;
  return sizeof hooks / sizeof *hooks;
}

const char *oai_in_charge(const gNB_MAC_INST *mac) {
  (void)mac;
  return NULL;
}
