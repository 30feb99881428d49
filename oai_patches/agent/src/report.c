#include "report.h"

#include <string.h>

/* Printable ASCII alone: one name that is not UTF-8 would cost the controller the whole report. */
static void copy_name(char *to, const char *from) {
  size_t n = strnlen(from, PRBANDIT_NAME_SIZE - 1);
  for (size_t i = 0; i < n; i++)
    to[i] = from[i] >= ' ' && from[i] < 0x7f ? from[i] : '?';
  to[n] = '\0';
}

static void fill_direction(prbandit_ran_DirectionState *to, const prbandit_direction_state *from) {
  to->mcs = from->mcs;
  to->mcs_table = from->mcs_table;
  to->layers = from->layers;
  to->queued_bytes = from->queued_bytes;
  to->lc_bytes = from->lc_bytes;
  to->prb_slots = from->prb_slots;
  to->bler = from->bler;
}

static void fill_channels(prbandit_ran_UeState *to, const prbandit_ue *from) {
  to->dl_channels_count = from->n_channels < PRBANDIT_MAX_CHANNELS ? from->n_channels : PRBANDIT_MAX_CHANNELS;
  for (pb_size_t i = 0; i < to->dl_channels_count; i++) {
    to->dl_channels[i].lcid = from->channels[i].lcid;
    to->dl_channels[i].queued_bytes = from->channels[i].queued_bytes;
  }
}

void report_fill(prbandit_ran_GnbMessage *message, const snapshot *from, const prbandit_config *config,
                 const link_quotas *bound) {
  memset(message, 0, sizeof *message);
  prbandit_ran_MacReport *report = &message->body.mac_report;
  message->which_body = prbandit_ran_GnbMessage_mac_report_tag;
  report->frame = from->frame;
  report->slot = from->slot;
  report->time_ns = from->time_ns;
  report->ues_count = (pb_size_t)from->n;
  for (uint32_t i = 0; i < from->n; i++) {
    const prbandit_ue *ue = &from->ues[i];
    prbandit_ran_UeState *to = &report->ues[i];
    to->rnti = ue->rnti;
    copy_name(to->ue_id, ue->ue_id);
    strcpy(to->slice, slice_name_of(config, bound, ue->ue_id, ue->snssai));
    to->has_ul = to->has_dl = true;
    fill_direction(&to->ul, &ue->ul);
    fill_direction(&to->dl, &ue->dl);
    to->cqi = ue->cqi;
    to->snr_db = ue->snr_db;
    to->has_snssai = ue->snssai.sst != 0;
    to->snssai = (prbandit_ran_Snssai){ue->snssai.sst, ue->snssai.sd};
    to->five_qi = ue->five_qi;
    to->priority_level = ue->priority_level;
    fill_channels(to, ue);
  }
}

static prbandit_ran_SliceUse *entry(use_ledger *ledger, const char *slice, prbandit_ran_Direction direction) {
  for (uint32_t i = 0; i < ledger->n; i++)
    if (ledger->uses[i].direction == direction && strcmp(ledger->uses[i].slice, slice) == 0)
      return &ledger->uses[i];
  if (ledger->n == sizeof ledger->uses / sizeof *ledger->uses)
    return NULL;
  prbandit_ran_SliceUse *use = &ledger->uses[ledger->n++];
  memset(use, 0, sizeof *use);
  memcpy(use->slice, slice, PRBANDIT_NAME_SIZE);
  use->direction = direction;
  return use;
}

uint32_t ledger_add(use_ledger *ledger, const receipt *from) {
  uint32_t lost = 0;
  for (uint32_t i = 0; i < from->n; i++)
    for (prbandit_direction d = PRBANDIT_UL; d <= PRBANDIT_DL; d++) {
      const use_sum *sum = &from->use[i][d];
      prbandit_ran_SliceUse *use =
          entry(ledger, from->slices[i], d == PRBANDIT_UL ? prbandit_ran_Direction_UL : prbandit_ran_Direction_DL);
      if (!use) {
        lost++;
        continue;
      }
      if (sum->max_new_prb > use->max_new_prb)
        use->max_new_prb = sum->max_new_prb;
      use->new_prb_slots += sum->new_prb_slots;
      use->retx_prb_slots += sum->retx_prb_slots;
      use->slots += sum->slots;
    }
  return lost;
}
