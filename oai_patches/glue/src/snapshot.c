/* MAC state of every connected UE, read in the scheduler's thread under its lock. */
#include "channels.h"
#include "oai.h"

#define FIRST_DRB_LCID 4
#define MAX_FIVE_QI 255
#define MAX_PRIORITY_LEVEL 127
#define LCIDS 33

/* OAI's PRB counters are 32 bits wide and wrap within hours of full load; here they are carried on. */
typedef struct {
  uint16_t rnti; /* 0: free */
  bool seen;
  uint64_t lc_bytes, prb[2];
  uint32_t last[2];
} ue_counters;

static ue_counters counters[PRBANDIT_MAX_UES];

static ue_counters *find_counters(uint16_t rnti) {
  ue_counters *free_one = NULL;
  for (int i = 0; i < PRBANDIT_MAX_UES; i++) {
    if (counters[i].rnti == rnti)
      return &counters[i];
    if (counters[i].rnti == 0 && free_one == NULL)
      free_one = &counters[i];
  }
  if (free_one != NULL)
    *free_one = (ue_counters){.rnti = rnti, .seen = true};
  return free_one;
}

static uint64_t carry_on(ue_counters *c, prbandit_direction direction, const NR_mac_dir_stats_t *stats) {
  const uint32_t now = stats->total_rbs + stats->total_rbs_retx;
  const uint32_t since = now - c->last[direction];
  c->prb[direction] += since < UINT32_MAX / 2 ? since : now; /* else it began anew */
  c->last[direction] = now;
  return c->prb[direction];
}

prbandit_snssai oai_snssai(const NR_UE_info_t *ue) {
#if OAI_LC_ARRAYS
  for (int lcid = FIRST_DRB_LCID; lcid < NR_MAX_NUM_LCID; lcid++) {
    const nssai_t *nssai = &ue->UE_sched_ctrl.dl_lc_nssai[lcid];
    if (nssai->sst != 0)
      return (prbandit_snssai){nssai->sst, nssai->sd & PRBANDIT_NO_SD};
  }
#else
  const seq_arr_t *lcs = &ue->UE_sched_ctrl.lc_config;
  for (size_t i = 0; i < seq_arr_size(lcs); i++) {
    const nr_lc_config_t *lc = seq_arr_at(lcs, i);
    if (lc->lcid >= FIRST_DRB_LCID && lc->nssai.sst != 0)
      return (prbandit_snssai){lc->nssai.sst, lc->nssai.sd & PRBANDIT_NO_SD};
  }
#endif
  return (prbandit_snssai){0, PRBANDIT_NO_SD};
}

/* A UE's logical channels, one after the other, each with the QoS flows of its DRB (NULL: an SRB). */
typedef struct {
  int lcid;
  const NR_QoS_config_t *flows;
} lc_facts;

#if OAI_LC_ARRAYS
static size_t lc_count(const NR_UE_sched_ctrl_t *ctrl) {
  return ctrl->dl_lc_num;
}

static lc_facts lc_at(const NR_UE_sched_ctrl_t *ctrl, size_t i) {
  const int lcid = ctrl->dl_lc_ids[i];
  const bool drb = lcid >= FIRST_DRB_LCID && lcid < NR_MAX_NUM_LCID;
  return (lc_facts){lcid, drb ? ctrl->qos_config[lcid - FIRST_DRB_LCID] : NULL};
}
#else
static size_t lc_count(const NR_UE_sched_ctrl_t *ctrl) {
  return seq_arr_size(&ctrl->lc_config);
}

static lc_facts lc_at(const NR_UE_sched_ctrl_t *ctrl, size_t i) {
  const nr_lc_config_t *lc = seq_arr_at(&ctrl->lc_config, i);
  return (lc_facts){lc->lcid, lc->lcid >= FIRST_DRB_LCID ? lc->qos_config : NULL};
}
#endif

/* A value that cannot be would cost the UE its whole place in the report. */
static uint8_t up_to(int64_t value, int64_t most) {
  return value >= 1 && value <= most ? (uint8_t)value : 0;
}

/* The bytes that wait, by logical channel, and the QoS of the first DRB that has a QoS flow: of its first flow.
 * Not nr_lc_config_t.priority: for a DRB without a core that is the priority of TS 38.331, for one with a core
 * the least priority level of its flows. */
static void read_channels(const NR_UE_sched_ctrl_t *ctrl, prbandit_ue *to) {
  prbandit_channel waits[CHANNELS_MOST];
  const uint32_t total = ctrl->num_total_bytes;
  uint32_t n = 0;
  bool known = false;
  to->five_qi = to->priority_level = 0;
  for (size_t i = 0, all = lc_count(ctrl); i < all && n < CHANNELS_MOST && (total != 0 || !known); i++) {
    const lc_facts lc = lc_at(ctrl, i);
    if (!known && lc.flows != NULL && (lc.flows->fiveQI != 0 || lc.flows->priority != 0)) {
      known = true;
      to->five_qi = up_to((int64_t)lc.flows->fiveQI, MAX_FIVE_QI);
      to->priority_level = up_to((int64_t)lc.flows->priority, MAX_PRIORITY_LEVEL);
    }
    if (lc.lcid < 1 || lc.lcid >= NR_MAX_NUM_LCID || ctrl->rlc_status[lc.lcid].bytes_in_buffer == 0)
      continue;
    waits[n++] = (prbandit_channel){(uint8_t)lc.lcid, (uint32_t)ctrl->rlc_status[lc.lcid].bytes_in_buffer};
  }
  channels_fill(to, waits, n, total);
}

static uint64_t drb_bytes(const NR_mac_dir_stats_t *stats) {
  uint64_t sum = 0;
  for (int lcid = FIRST_DRB_LCID; lcid < LCIDS; lcid++)
    sum += stats->lc_bytes[lcid];
  return sum;
}

static void read_ue(const NR_UE_info_t *from, prbandit_ue *to) {
  const NR_UE_sched_ctrl_t *ctrl = &from->UE_sched_ctrl;
  const struct CRI_RI_LI_PMI_CQI *csi = &ctrl->CSI_report.cri_ri_li_pmi_cqi_report;
  const int ul_bytes = ctrl->estimated_ul_buffer - ctrl->sched_ul_bytes;

  to->rnti = from->rnti;
  stage_ue_id(from->rnti, to->ue_id);
  to->snssai = oai_snssai(from);
  to->cqi = csi->wb_cqi_1tb;
  to->snr_db = OAI_PUSCH_SNR_DB(ctrl);

  to->dl = (prbandit_direction_state){
      .mcs = ctrl->dl_bler_stats.mcs,
      .mcs_table = (uint8_t)(from->current_DL_BWP.mcsTableIdx + 1),
      .layers = from->current_DL_BWP.dci_format == NR_DL_DCI_FORMAT_1_0 ? 1 : (uint8_t)(csi->ri + 1),
      .bler = ctrl->dl_bler_stats.bler,
      .queued_bytes = ctrl->num_total_bytes,
      .lc_bytes = drb_bytes(&from->mac_stats.dl),
  };
  /* OAI's UL tables 3 and 4 are tables 1 and 2 of TS 38.214 6.1.4.1, for transform precoding. */
  const uint8_t ul_table = from->current_UL_BWP.mcs_table;
  to->ul = (prbandit_direction_state){
      .mcs = ctrl->ul_bler_stats.mcs,
      .mcs_table = ul_table < 3 ? (uint8_t)(ul_table + 1) : ul_table == 3 ? 1 : 3,
      .layers = (uint8_t)(ctrl->srs_feedback.ul_ri + 1),
      .bler = ctrl->ul_bler_stats.bler,
      .queued_bytes = ul_bytes > 0 ? (uint64_t)ul_bytes : 0,
      .lc_bytes = drb_bytes(&from->mac_stats.ul),
  };
  read_channels(ctrl, to);

  ue_counters *c = find_counters(from->rnti);
  if (c == NULL)
    return;
  const uint64_t bytes = to->dl.lc_bytes + to->ul.lc_bytes;
  if (bytes < c->lc_bytes) /* another UE has the RNTI now */
    *c = (ue_counters){.rnti = from->rnti};
  c->lc_bytes = bytes;
  c->seen = true;
  to->dl.prb_slots = carry_on(c, PRBANDIT_DL, &from->mac_stats.dl);
  to->ul.prb_slots = carry_on(c, PRBANDIT_UL, &from->mac_stats.ul);
}

uint32_t oai_snapshot(void *context, prbandit_ue *ues, uint32_t max) {
  const oai_glue *glue = context;
  uint32_t n = 0;
  for (int i = 0; i < PRBANDIT_MAX_UES; i++)
    counters[i].seen = false;
  for (NR_UE_info_t **ue = glue->mac->OAI_UES; *ue != NULL; ue++) {
    if (!oai_connected(*ue))
      continue;
    if (n < max)
      read_ue(*ue, &ues[n]);
    n++;
  }
  for (int i = 0; i < PRBANDIT_MAX_UES; i++)
    if (!counters[i].seen)
      counters[i].rnti = 0;
  return n;
}
