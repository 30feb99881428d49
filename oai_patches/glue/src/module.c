/* libtelnetsrv_prbandit.so: OAI's loader opens it and calls the function NAME_autoinit. At that time nothing of
 * the gNB is there yet, and the pre-processors are set more than once while it starts; so a thread waits for
 * them, puts ours in their place, and goes on looking whether they stay there.
 *
 * Whatever goes wrong leaves the gNB as it would be without this module. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <malloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "oai.h"

#define LOOK_US 100000
#define QUICK_LOOKS 300 /* 30 s of NR slots; then one look a second */

static oai_glue glue;

static void say(const char *format, ...) {
  va_list list;
  va_start(list, format);
  char text[512];
  vsnprintf(text, sizeof text, format, list);
  va_end(list);
  fprintf(stdout, "[PRBANDIT] %s\n", text);
  fflush(stdout);
}

static void log_agent(void *context, int level, const char *text) {
  (void)context;
  static const char *const names[] = {"error: ", "warning: ", ""};
  say("%s%s", level >= 0 && level < 2 ? names[level] : "", text);
}

/* ---- in the scheduler's thread ---------------------------------------------------------------------------- */

/* The first pre-processor that runs in an NR slot begins it. */
static void begin_slot(int frame, int slot) {
  static int last = -1;
  const int now = frame * 1024 + slot;
  if (now == last)
    return;
  last = now;
  glue.calls++;
  prbandit_nr_slot(glue.agent, (uint32_t)frame, (uint32_t)slot, oai_snapshot, &glue);
}

#if OAI_UL_NEXT
static void wrapped_dl(module_id_t id, frame_t frame, slot_t slot)
#else
static void wrapped_dl(module_id_t id, frame_t frame, sub_frame_t slot)
#endif
{
  if (id != glue.mac->Mod_id) {
    glue.dl(id, frame, slot);
    return;
  }
  begin_slot(frame, slot);
  oai_glue_dl(&glue, frame, slot);
}

#if OAI_UL_NEXT
static void wrapped_ul(gNB_MAC_INST *mac, post_process_pusch_t *pusch) {
  if (mac != glue.mac) {
    glue.ul(mac, pusch);
    return;
  }
  begin_slot(pusch->frame, pusch->slot);
  oai_glue_ul(&glue, pusch);
}
#else
static bool wrapped_ul(module_id_t id, frame_t frame, sub_frame_t slot) {
  if (id != glue.mac->Mod_id)
    return glue.ul(id, frame, slot);
  begin_slot(frame, slot);
  return oai_glue_ul(&glue, frame, slot);
}
#endif

/* ---- start ------------------------------------------------------------------------------------------------ */

static const NR_ServingCellConfigCommon_t *serving_cell(void) {
  if (RC.nrmac == NULL || RC.nrmac[0] == NULL)
    return NULL;
  const gNB_MAC_INST *mac = RC.nrmac[0];
  const bool ready = mac->pre_processor_dl != NULL && mac->pre_processor_ul != NULL && mac->vrb_map_UL_size > 0 &&
                     mac->OAI_UL_MAP != NULL;
  return ready ? mac->common_channels[0].ServingCellConfigCommon : NULL;
}

/* The first symbol of OAI's that this binary does not export, or NULL. */
static const char *missing_symbol(void) {
  static const char *const names[] = {OAI_SYMBOLS};
  for (size_t i = 0; i < sizeof names / sizeof *names; i++)
    if (dlsym(RTLD_DEFAULT, names[i]) == NULL)
      return names[i];
  return NULL;
}

static bool refuse(const char *why) {
  say("error: %s; the gNB goes on without PRBandit", why);
  return false;
}

static bool read_tdd(const NR_TDD_UL_DL_ConfigCommon_t *config, long mu, prbandit_tdd *tdd) {
  /* TS 38.331 dl-UL-TransmissionPeriodicity; 3 and 4 ms are in ext1, which OAI leaves out where it is not used */
  static const long periods_us[] = {500, 625, 1000, 1250, 2000, 2500, 5000, 10000};
  const long n_periods = sizeof periods_us / sizeof *periods_us;
  if (config == NULL)
    return refuse("FDD is not supported");
  const NR_TDD_UL_DL_Pattern_t *p = &config->pattern1;
  const long at = p->dl_UL_TransmissionPeriodicity;
  if (config->pattern2 != NULL)
    return refuse("a second TDD pattern is not supported");
  if (p->ext1 != NULL || at < 0 || at >= n_periods || (periods_us[at] << mu) % 1000 != 0)
    return refuse("this TDD period is not supported");
  *tdd = (prbandit_tdd){
      .period_slots = (uint8_t)((periods_us[at] << mu) / 1000),
      .dl_slots = (uint8_t)p->nrofDownlinkSlots,
      .dl_symbols = (uint8_t)p->nrofDownlinkSymbols,
      .ul_symbols = (uint8_t)p->nrofUplinkSymbols,
      .ul_slots = (uint8_t)p->nrofUplinkSlots,
  };
  return true;
}

static bool read_cell(prbandit_cell *cell) {
  gNB_MAC_INST *mac = RC.nrmac[0];
  const NR_ServingCellConfigCommon_t *scc = mac->common_channels[0].ServingCellConfigCommon;
  /* A module that was built against other headers would misread every structure. */
  const size_t size = malloc_usable_size(mac);
  if (size < sizeof *mac || size > sizeof *mac + 2 * 4096)
    return refuse("gNB_MAC_INST has another size in this gNB than in the OAI tree of the module");
  if (get_softmodem_params()->phy_test)
    return refuse("--phy-test replaces the scheduler");
  if (RC.nb_nr_macrlc_inst != 1)
    return refuse("more than one MAC instance");
#if OAI_BEAMS
  if (mac->beam_info.beam_allocation != NULL)
    return refuse("beams share the carrier, each with its own map of PRBs");
#endif
  const long mu = *scc->ssbSubcarrierSpacing;
  const NR_FrequencyInfoDL_t *down = scc->downlinkConfigCommon->frequencyInfoDL;
  const NR_FrequencyInfoUL_t *up = scc->uplinkConfigCommon->frequencyInfoUL;
  const long dl = down->scs_SpecificCarrierList.list.array[0]->carrierBandwidth;
  const long ul = up->scs_SpecificCarrierList.list.array[0]->carrierBandwidth;
  if (mu < 0 || mu > 3 || dl < 11 || dl > PASSES_MAX_PRB || ul != dl)
    return refuse("the carrier is none that PRBandit knows");

  glue.mac = mac;
  glue.n_prb = (uint16_t)dl;
  glue.slots_per_frame = (uint16_t)(10 << mu);
  glue.ul_min_prb = OAI_UL_MIN_PRB;
  if (mac->vrb_map_UL_size > OAI_UL_MAP_SLOTS)
    return refuse("the UL map holds more NR slots than expected");
  *cell = (prbandit_cell){.n_prb = glue.n_prb, .scs_khz = (uint16_t)(15 << mu)};
  cell->min_prb = glue.ul_min_prb > OAI_DL_MIN_PRB ? glue.ul_min_prb : OAI_DL_MIN_PRB;
  return read_tdd(scc->tdd_UL_DL_ConfigurationCommon, mu, &cell->tdd);
}

static bool start_agent(void) {
  prbandit_cell cell;
  if (!read_cell(&cell))
    return false;
  const char *path = getenv("PRBANDIT_CONFIG");
  prbandit_config config;
  char error[256];
  if (prbandit_config_read(path != NULL ? path : "prbandit.conf", &config, error, sizeof error) != 0)
    return refuse(error);
  glue.agent = prbandit_start(&config, &cell, log_agent, NULL, error, sizeof error);
  if (glue.agent == NULL)
    return refuse(error);
  say("agent %s, built against OAI %s: cell %s, %u PRB, %u kHz, controller %s", PRBANDIT_AGENT_VERSION, OAI_VERSION,
      config.cell_id, cell.n_prb, cell.scs_khz, config.endpoint);
  return true;
}

typedef enum { IN_PLACE, WRAPPED, FOREIGN } look;

/* One pointer each: the scheduler calls either the old function or the new one. Only a pointer that is OAI's own
 * again is wrapped again: to wrap somebody else's wrapper of ours would make a circle. */
static look wrap(void) {
  look found = IN_PLACE;
  const nr_pp_impl_dl dl = __atomic_load_n(&glue.mac->pre_processor_dl, __ATOMIC_ACQUIRE);
  const nr_pp_impl_ul ul = __atomic_load_n(&glue.mac->pre_processor_ul, __ATOMIC_ACQUIRE);
  if (glue.dl == NULL || dl == glue.dl) {
    glue.dl = dl;
    __atomic_store_n(&glue.mac->pre_processor_dl, wrapped_dl, __ATOMIC_RELEASE);
    found = WRAPPED;
  }
  if (glue.ul == NULL || ul == glue.ul) {
    glue.ul = ul;
    __atomic_store_n(&glue.mac->pre_processor_ul, wrapped_ul, __ATOMIC_RELEASE);
    found = WRAPPED;
  }
  const bool foreign = (dl != wrapped_dl && dl != glue.dl) || (ul != wrapped_ul && ul != glue.ul);
  return foreign ? FOREIGN : found;
}

static void *watch(void *unused) {
  (void)unused;
  while (serving_cell() == NULL)
    usleep(LOOK_US);
  usleep(LOOK_US); /* the rest of the cell's configuration is written within moments */
  if (!start_agent())
    return NULL;
  bool first = true, warned = false;
  for (int looks = 0;;) {
    const look found = wrap();
    if (found == WRAPPED) {
      say(first ? "in the scheduler's path" : "a replaced pre-processor was wrapped again");
      first = false;
    } else if (found == FOREIGN && !warned) {
      say("error: another pre-processor was put in place: quotas are not enforced unless it calls PRBandit's");
      warned = true;
    }
    usleep(looks < QUICK_LOOKS ? LOOK_US : 10 * LOOK_US);
    if (looks < QUICK_LOOKS)
      looks += __atomic_load_n(&glue.calls, __ATOMIC_RELAXED) > 0;
  }
}

/* OAI's loader calls this; for a gNB without telnet see the README. */
__attribute__((visibility("default"))) int telnetsrv_prbandit_autoinit(void *unused) {
  (void)unused;
  static bool begun = false;
  if (begun)
    return 0;
  begun = true;
  const char *missing = missing_symbol();
  if (missing != NULL) {
    char why[128];
    snprintf(why, sizeof why, "this binary does not export %s (OAI %s was expected)", missing, OAI_VERSION);
    refuse(why);
    return 0;
  }
  /* never with the real-time priority of the thread that loads us */
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setinheritsched(&attributes, PTHREAD_EXPLICIT_SCHED);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_t thread;
  if (pthread_create(&thread, &attributes, watch, NULL) != 0)
    refuse("no thread could be started");
  pthread_attr_destroy(&attributes);
  return 0;
}

/* The telnet server asks each of its modules for its commands. */
__attribute__((visibility("default"))) void add_prbandit_cmds(void) {
}
