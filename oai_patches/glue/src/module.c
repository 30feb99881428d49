/* libtelnetsrv_prbandit.so: OAI's loader opens it and calls the function NAME_autoinit. At that time nothing of
 * the gNB is there yet, and the scheduler's functions are set more than once while it starts; so a thread waits for
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
static prbandit_cell cell;

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

void oai_begin_slot(oai_glue *of, int frame, int slot) {
  static int last = -1;
  const int now = frame * 1024 + slot;
  if (now == last)
    return;
  last = now;
  of->calls++;
  prbandit_nr_slot(of->agent, (uint32_t)frame, (uint32_t)slot, oai_snapshot, of);
}

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
    return refuse("FDD is not supported: the controller knows TDD patterns, in which an NR slot has one direction");
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

static bool read_cell(void) {
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
    return refuse("the carrier is not one of 11 to 275 PRB, the same in UL and DL, of 15 to 120 kHz");

  glue.mac = mac;
  glue.n_prb = (uint16_t)dl;
  glue.slots_per_frame = (uint16_t)(10 << mu);
  glue.ul_min_prb = OAI_UL_MIN_PRB;
  if (mac->vrb_map_UL_size > OAI_UL_MAP_SLOTS)
    return refuse("the UL map holds more NR slots than expected");
  if (glue.ul_min_prb == 0)
    return refuse("min_grant_prb is 0 in OAI's configuration (MACRLCs): a grant has 1 PRB or more");
  cell = (prbandit_cell){.n_prb = glue.n_prb, .scs_khz = (uint16_t)(15 << mu)};
  cell.min_prb = glue.ul_min_prb > OAI_DL_MIN_PRB ? glue.ul_min_prb : OAI_DL_MIN_PRB;
  return read_tdd(scc->tdd_UL_DL_ConfigurationCommon, mu, &cell.tdd);
}

static bool start_agent(void) {
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

static void look_after(hook *hooks, uint32_t n) {
  static bool in_path, warned[OAI_HOOKS];
  for (uint32_t i = 0; i < n; i++) {
    const hook_state found = hook_place(&hooks[i], &RC);
    if (found == HOOK_PLACED && in_path)
      say("the %s was replaced by %s, which is hooked now", hooks[i].name, hook_function_name(hooks[i].original));
    if (found == HOOK_FOREIGN && !warned[i])
      say("error: another %s was put in place, %s: quotas are not enforced unless it calls PRBandit's", hooks[i].name,
          hook_function_name(*hooks[i].at));
    warned[i] = found == HOOK_FOREIGN;
  }
  if (in_path)
    return;
  in_path = true;
  for (uint32_t i = 0; i < n; i++)
    say("%s: before %s", hooks[i].name, hook_function_name(hooks[i].original));
  say("in the scheduler's path (%s)", oai_scheduler);
}

/* Where OAI's own policies divide the PRBs, ours would fight with them: the agent ends, which the controller sees,
 * and all is OAI's until they are gone. The scheduler's lock, so that no call of the agent's is under way. */
static void step_aside(const char *why) {
  pthread_mutex_lock(&glue.mac->sched_lock);
  glue.aside = true;
  pthread_mutex_unlock(&glue.mac->sched_lock);
  prbandit_stop(glue.agent);
  glue.agent = NULL;
  say("error: %s: OAI is in charge of the PRBs, PRBandit steps aside until they are disabled", why);
}

static bool step_in(void) {
  if (!start_agent())
    return false;
  pthread_mutex_lock(&glue.mac->sched_lock);
  glue.aside = false;
  pthread_mutex_unlock(&glue.mac->sched_lock);
  return true;
}

static void warn_of_faults(void) {
  static uint32_t warned;
  const uint32_t outside = __atomic_load_n(&glue.faults.outside, __ATOMIC_RELAXED);
  if (outside > 2 * warned) {
    say("warning: %u grants were on PRBs that were not free for them: the gNB's allocation stage does not keep to "
        "its map", outside);
    warned = outside;
  }
}

static void *watch(void *unused) {
  (void)unused;
  while (serving_cell() == NULL)
    usleep(LOOK_US);
  usleep(LOOK_US); /* the rest of the cell's configuration is written within moments */
  glue.aside = true;
  if (!read_cell())
    return NULL;
  hook *hooks;
  const uint32_t n = oai_hooks(&glue, &hooks);
  const char *why = oai_in_charge(glue.mac);
  if (why != NULL)
    say("error: %s: OAI is in charge of the PRBs, PRBandit waits until they are disabled", why);
  for (int looks = 0;;) {
    why = oai_in_charge(glue.mac);
    if (why != NULL && !glue.aside)
      step_aside(why);
    if (why == NULL && glue.aside && !step_in())
      return NULL;
    if (!glue.aside)
      look_after(hooks, n);
    warn_of_faults();
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
