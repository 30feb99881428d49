/* A gNB in as few lines as will do, to drive the agent through its public header alone: UEs whose queues fill at
 * a given rate, NR slots of 0.5 ms in real time, DSUUU, contiguous allocation inside the slices' ranges, and
 * HARQ retransmissions that keep their size. It stands in for no radio: what the emulated cell models is not
 * here. Once a second a line of JSON on standard output says what was done; the agent's log goes to standard
 * error. Exit status 3: a new transmission left its range. */
#include <getopt.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "prbandit_agent.h"

enum { NR_SLOT_NS = 500000, SLOTS_PER_FRAME = 20, NR_SLOTS_PER_S = 2000, MAX_LATE = 200, MAX_UES = 80 };
enum { DRB_LCID = 4, FIVE_QI = 9, PRIORITY_LEVEL = 90 }; /* TS 23.501 Table 5.7.4-1 */
enum { BYTES_PER_PRB = 64 }; /* of one NR slot: MCS 20 of TS 38.214 Table 5.1.3.1-1, one layer */

typedef struct {
  uint64_t queue, lc_bytes, prb_slots;
  uint32_t retx_prb; /* of the block that is to be sent again, 0: none */
  uint64_t retx_bytes;
  uint32_t max_prb; /* in one NR slot since the last line, new transmissions */
} toy_direction;

typedef struct {
  uint16_t rnti;
  char ue_id[PRBANDIT_NAME_SIZE];
  uint32_t range;
  toy_direction to[2];
} toy_ue;

static struct {
  uint32_t n_ues, prb, min_prb, retx_percent, swap_after_s;
  double seconds;
  uint64_t bps[2];
} options = {.n_ues = 2, .prb = 106, .min_prb = 5, .retx_percent = 5, .seconds = 10, .bps = {20000000, 20000000}};

static toy_ue ues[MAX_UES];
static prbandit_agent *agent;
static volatile sig_atomic_t stop;
static uint64_t nr_slot, skipped;
static uint32_t turn[2]; /* who is first: counted apart, or some UE would only ever be so in the other direction */
static const prbandit_snssai NO_SNSSAI = {0, PRBANDIT_NO_SD};

static void on_signal(int number) {
  (void)number;
  stop = 1;
}

static uint32_t random_below(uint32_t n) { /* xorshift32 */
  static uint32_t state = 2463534242u;
  state ^= state << 13, state ^= state >> 17, state ^= state << 5;
  return state % n;
}

static uint32_t snapshot(void *context, prbandit_ue *to, uint32_t max) {
  (void)context;
  for (uint32_t i = 0; i < options.n_ues && i < max; i++) {
    toy_ue *ue = &ues[i];
    prbandit_direction_state *states[2] = {&to[i].ul, &to[i].dl};
    to[i].rnti = ue->rnti;
    memcpy(to[i].ue_id, ue->ue_id, sizeof ue->ue_id);
    to[i].snssai = NO_SNSSAI;
    to[i].cqi = 15;
    to[i].snr_db = 30;
    to[i].five_qi = FIVE_QI;
    to[i].priority_level = PRIORITY_LEVEL;
    to[i].n_channels = ue->to[PRBANDIT_DL].queue != 0;
    to[i].channels[0] = (prbandit_channel){DRB_LCID, (uint32_t)ue->to[PRBANDIT_DL].queue};
    for (int d = 0; d < 2; d++)
      *states[d] = (prbandit_direction_state){.mcs = 20,
                                              .mcs_table = 1,
                                              .layers = 1,
                                              .bler = (float)options.retx_percent / 100,
                                              .queued_bytes = ue->to[d].queue,
                                              .lc_bytes = ue->to[d].lc_bytes,
                                              .prb_slots = ue->to[d].prb_slots};
  }
  return options.n_ues;
}

/* ---- one NR slot in one direction ------------------------------------------------------------------------ */

typedef struct {
  bool busy[275];
  uint32_t new_prb[PRBANDIT_MAX_SLICES + 1], retx_prb[PRBANDIT_MAX_SLICES + 1];
} grid;

/* The first run of free PRBs in a range, of `want` at most; its size, 0 where it is below `least`. */
static uint32_t find(const grid *g, prbandit_range within, uint32_t want, uint32_t least, uint32_t *start) {
  for (uint32_t p = within.start, end = p + within.size; p < end; p++) {
    uint32_t n = 0;
    while (p + n < end && !g->busy[p + n] && n < want)
      n++;
    if (n >= least && n) {
      *start = p;
      return n;
    }
    p += n;
  }
  return 0;
}

static void occupy(grid *g, uint32_t start, uint32_t n) {
  memset(g->busy + start, 1, n);
}

static void deliver(toy_ue *ue, int d, uint32_t prb, uint64_t bytes) {
  toy_direction *t = &ue->to[d];
  t->prb_slots += prb;
  if (random_below(100) < options.retx_percent) {
    t->retx_prb = prb;
    t->retx_bytes = bytes;
  } else {
    t->retx_prb = 0;
    t->lc_bytes += bytes;
  }
}

static void retransmit(grid *g, toy_ue *ue, prbandit_direction d, prbandit_range own) {
  prbandit_range carrier = {0, (uint16_t)options.prb};
  uint32_t prb = ue->to[d].retx_prb, start, outside = 0;
  if (!find(g, own, prb, prb, &start)) {
    if (!find(g, carrier, prb, prb, &start))
      return;
    for (uint32_t p = start; p < start + prb; p++)
      outside += p < own.start || p >= (uint32_t)own.start + own.size;
    prbandit_widened(agent, d, ue->range, outside);
  }
  occupy(g, start, prb);
  g->retx_prb[ue->range] += prb;
  deliver(ue, d, prb, ue->to[d].retx_bytes);
}

static void transmit(grid *g, toy_ue *ue, prbandit_direction d, prbandit_range own) {
  toy_direction *t = &ue->to[d];
  uint64_t need = (t->queue + BYTES_PER_PRB - 1) / BYTES_PER_PRB;
  uint32_t want = need < options.min_prb ? options.min_prb : need > options.prb ? options.prb : (uint32_t)need;
  uint32_t start, prb = find(g, own, want, options.min_prb, &start);
  if (!prb)
    return;
  if (start < own.start || start + prb > (uint32_t)own.start + own.size)
    exit(3);
  occupy(g, start, prb);
  uint64_t bytes = (uint64_t)prb * BYTES_PER_PRB < t->queue ? (uint64_t)prb * BYTES_PER_PRB : t->queue;
  t->queue -= bytes;
  t->max_prb = prb > t->max_prb ? prb : t->max_prb;
  g->new_prb[ue->range] += prb;
  deliver(ue, d, prb, bytes);
}

static void schedule(prbandit_direction d) {
  grid g = {0};
  prbandit_range all = {0, (uint16_t)options.prb};
  const prbandit_range *ranges;
  uint32_t n = prbandit_ranges(agent, d, &ranges);
  if (n == 0)
    ranges = &all;
  bool again[MAX_UES];
  for (uint32_t i = 0; i < options.n_ues; i++) {
    toy_ue *ue = &ues[i];
    ue->range = prbandit_slice_of(agent, ue->rnti, ue->ue_id, NO_SNSSAI);
    again[i] = ue->to[d].retx_prb;
    if (again[i])
      retransmit(&g, ue, d, ranges[ue->range]);
  }
  for (uint32_t i = 0; i < options.n_ues; i++) {
    uint32_t u = (i + turn[d]) % options.n_ues;
    if (!again[u] && ues[u].to[d].queue)
      transmit(&g, &ues[u], d, ranges[ues[u].range]);
  }
  turn[d]++;
  for (uint32_t r = 0; r < (n ? n : 1); r++)
    prbandit_used(agent, d, r, g.new_prb[r], g.retx_prb[r]);
}

static void one_nr_slot(void) {
  uint32_t in_period = nr_slot % 5;
  prbandit_nr_slot(agent, (uint32_t)(nr_slot / SLOTS_PER_FRAME % 1024), (uint32_t)(nr_slot % SLOTS_PER_FRAME),
                   snapshot, NULL);
  for (uint32_t i = 0; i < options.n_ues; i++)
    for (int d = 0; d < 2; d++) {
      toy_direction *t = &ues[i].to[d];
      t->queue += options.bps[d] / 8 / NR_SLOTS_PER_S;
      if (t->queue > 1000000)
        t->queue = 1000000;
    }
  if (in_period < 2)
    schedule(PRBANDIT_DL);
  else
    schedule(PRBANDIT_UL);
  nr_slot++;
}

/* ---- what it says ---------------------------------------------------------------------------------------- */

static void print_ranges(const char *name, prbandit_direction d) {
  const prbandit_range *r;
  uint32_t n = prbandit_ranges(agent, d, &r);
  printf("\"%s\": [", name);
  for (uint32_t i = 0; i < n; i++)
    printf("%s[%u, %u]", i ? ", " : "", r[i].start, r[i].size);
  printf("], ");
}

static void print_line(void) {
  prbandit_counters c;
  prbandit_read_counters(agent, &c);
  printf("{\"nr_slot\": %" PRIu64 ", \"skipped\": %" PRIu64 ", ", nr_slot, skipped);
  print_ranges("ul_ranges", PRBANDIT_UL);
  print_ranges("dl_ranges", PRBANDIT_DL);
  printf("\"ues\": {");
  for (uint32_t i = 0; i < options.n_ues; i++) {
    toy_ue *ue = &ues[i];
    printf("%s\"%s\": {\"rnti\": %u, \"range\": %u, \"ul_max_prb\": %u, \"dl_max_prb\": %u, \"ul_bytes\": %" PRIu64
           ", \"dl_bytes\": %" PRIu64 "}",
           i ? ", " : "", ue->ue_id, ue->rnti, ue->range, ue->to[0].max_prb, ue->to[1].max_prb, ue->to[0].lc_bytes,
           ue->to[1].lc_bytes);
    ue->to[0].max_prb = ue->to[1].max_prb = 0;
  }
  printf("}, \"ran\": {");
#define COUNTER(name) printf("\"" #name "\": %" PRIu64 ", ", c.name)
  COUNTER(sessions), COUNTER(hellos), COUNTER(rejects), COUNTER(hello_requests), COUNTER(reconnects), COUNTER(quotas), COUNTER(releases);
  COUNTER(leases_lapsed), COUNTER(reports_sent), COUNTER(reports_dropped), COUNTER(acks_superseded);
  COUNTER(malformed), COUNTER(wrong_session), COUNTER(old_sequence), COUNTER(repeated_sequence);
  COUNTER(refused_quotas), COUNTER(refused_welcomes), COUNTER(widened), COUNTER(ues_left_out);
  printf("\"uses_left_out\": %" PRIu64 "}}\n", c.uses_left_out);
  fflush(stdout);
}

/* ---- start ----------------------------------------------------------------------------------------------- */

static void usage(void) {
  fprintf(stderr, "toy_gnb [--ues N] [--seconds S] [--ul-bps R] [--dl-bps R] [--retx PERCENT] [--swap-after S]"
                  " CONFIGURATION\n--swap-after: UEs 1 and 2 change their RNTIs then\n");
  exit(2);
}

static const char *read_options(int argc, char **argv) {
  static const struct option long_options[] = {{"ues", 1, 0, 'n'},    {"seconds", 1, 0, 's'}, {"ul-bps", 1, 0, 'u'},
                                               {"dl-bps", 1, 0, 'd'}, {"retx", 1, 0, 'r'},    {"swap-after", 1, 0, 'w'},
                                               {0}};
  for (int o; (o = getopt_long(argc, argv, "", long_options, NULL)) != -1;)
    switch (o) {
    case 'n': options.n_ues = (uint32_t)atoi(optarg); break;
    case 's': options.seconds = atof(optarg); break;
    case 'u': options.bps[PRBANDIT_UL] = strtoull(optarg, NULL, 10); break;
    case 'd': options.bps[PRBANDIT_DL] = strtoull(optarg, NULL, 10); break;
    case 'r': options.retx_percent = (uint32_t)atoi(optarg); break;
    case 'w': options.swap_after_s = (uint32_t)atoi(optarg); break;
    default: usage();
    }
  if (optind != argc - 1 || options.n_ues < 1 || options.n_ues > MAX_UES)
    usage();
  return argv[optind];
}

static int64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static void run(void) {
  int64_t next = now_ns();
  uint64_t end = (uint64_t)(options.seconds * NR_SLOTS_PER_S);
  while (!stop && nr_slot < end) {
    one_nr_slot();
    if (nr_slot % NR_SLOTS_PER_S == 0)
      print_line();
    if (options.swap_after_s && nr_slot == (uint64_t)options.swap_after_s * NR_SLOTS_PER_S) {
      uint16_t rnti = ues[0].rnti;
      ues[0].rnti = ues[1].rnti;
      ues[1].rnti = rnti;
    }
    next += NR_SLOT_NS;
    int64_t late = (now_ns() - next) / NR_SLOT_NS;
    if (late > MAX_LATE) {
      skipped += (uint64_t)late;
      next += late * NR_SLOT_NS;
    }
    struct timespec at = {next / 1000000000, next % 1000000000};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, NULL);
  }
}

int main(int argc, char **argv) {
  prbandit_config config;
  char error[512];
  const char *path = read_options(argc, argv);
  prbandit_cell cell = {.n_prb = (uint16_t)options.prb,
                        .min_prb = (uint16_t)options.min_prb,
                        .scs_khz = 30,
                        .tdd = {.period_slots = 5, .dl_slots = 1, .dl_symbols = 10, .ul_symbols = 2, .ul_slots = 3}};
  for (uint32_t i = 0; i < options.n_ues; i++) {
    ues[i].rnti = (uint16_t)(0x4601 + i);
    snprintf(ues[i].ue_id, sizeof ues[i].ue_id, "ue-%u", i + 1);
  }
  if (prbandit_config_read(path, &config, error, sizeof error) != 0 ||
      !(agent = prbandit_start(&config, &cell, NULL, NULL, error, sizeof error))) {
    fprintf(stderr, "toy_gnb: %s\n", error);
    return 1;
  }
  signal(SIGTERM, on_signal);
  signal(SIGINT, on_signal);
  run();
  print_line();
  prbandit_stop(agent);
  return 0;
}
