/* Drives the protocol core by lines on standard input; each gives one line. Names and messages are in
 * hexadecimal, times in ns, "-" is nothing. The same lines drive the Python model (tests/oai_patches). */
#include <inttypes.h>
#include <stdarg.h>

#include "check.h"
#include "decode.h"
#include "report.h"

enum { LINE = 1 << 18 };
static ran_link link_;
static prbandit_config config;
static snapshot shot;
static prbandit_ran_GnbMessage message;
static link_message encoded;

static void quiet(void *context, int level, const char *text) {
  (void)context, (void)level, (void)text;
}

static size_t from_hex(const char *hex, uint8_t *to, size_t size) {
  size_t n = 0;
  unsigned byte;
  for (; n < size && sscanf(hex, "%2x", &byte) == 1; hex += 2)
    to[n++] = (uint8_t)byte;
  return n;
}

static void name_from_hex(const char *hex, char *to, size_t size) {
  memset(to, 0, size);
  if (strcmp(hex, "-") != 0)
    from_hex(hex, (uint8_t *)to, size - 1);
}

static void print_hex(const uint8_t *data, size_t n) {
  if (!n)
    printf("-");
  for (size_t i = 0; i < n; i++)
    printf("%02x", data[i]);
}

static void print_name(const char *name) {
  printf("\"");
  for (; *name; name++)
    printf("%02x", (uint8_t)*name);
  printf("\"");
}

static void print_quotas(const prbandit_ran_SliceQuota *q, uint32_t n) {
  printf("[");
  for (uint32_t i = 0; i < n; i++) {
    printf("%s[", i ? "," : "");
    print_name(q[i].slice);
    printf(",%" PRIu32 ",%" PRIu32 "]", q[i].ul_prb, q[i].dl_prb);
  }
  printf("]");
}

static void print_bindings(const prbandit_ran_UeBinding *b, uint32_t n) {
  printf("[");
  for (uint32_t i = 0; i < n; i++) {
    printf("%s[", i ? "," : "");
    print_name(b[i].ue_id);
    printf(",");
    print_name(b[i].slice);
    printf("]");
  }
  printf("]");
}

static void print_counters(void) {
  const prbandit_counters *c = &link_.counters;
#define COUNTER(name) printf("%s\"" #name "\":%" PRIu64, first++ ? "," : "{", c->name)
  int first = 0;
  COUNTER(sessions), COUNTER(hellos), COUNTER(rejects), COUNTER(hello_requests), COUNTER(quotas), COUNTER(releases);
  COUNTER(reconnects);
  COUNTER(leases_lapsed), COUNTER(acks_superseded), COUNTER(malformed), COUNTER(wrong_session);
  COUNTER(old_sequence), COUNTER(repeated_sequence), COUNTER(refused_quotas), COUNTER(refused_welcomes);
  COUNTER(uses_left_out);
  printf("}");
}

static void print_state(void) {
  printf("{\"session\":%" PRIu64 ",\"period\":%" PRIu32 ",\"rejected\":%s,\"pending\":", link_.session,
         link_.report_period_ms, link_.rejected ? "true" : "false");
  const link_enforce *p = &link_.pending;
  if (p->id) {
    printf("{\"session\":%" PRIu64 ",\"sequence\":%" PRIu64 ",\"lapsed\":%s,\"quotas\":", p->session, p->sequence,
           p->lapsed ? "true" : "false");
    print_quotas(p->what.quotas, p->what.n_quotas);
    printf(",\"bindings\":");
    print_bindings(p->what.bindings, p->what.n_bindings);
    printf("}");
  } else {
    printf("null");
  }
  printf(",\"in_force\":");
  print_quotas(link_.in_force.quotas, link_.in_force.n_quotas);
  printf(",\"bindings\":");
  print_bindings(link_.in_force.bindings, link_.in_force.n_bindings);
  if (link_.lease.held)
    printf(",\"lease\":[%" PRId64 ",%" PRIu64 ",%" PRIu64 "]", link_.lease.ends, link_.lease.session,
           link_.lease.sequence);
  else
    printf(",\"lease\":null");
  printf(",\"counters\":");
  print_counters();
  printf("}");
}

/* What a message says, in the words of protobuf's JSON but for names, which are hexadecimal. */
static void print_decoded(const uint8_t *data, size_t size) {
  static decoded d;
  if (size > MAX_MESSAGE_SIZE || !decode_controller_message(data, size, &d)) {
    printf("null");
    return;
  }
  const prbandit_ran_ControllerMessage *m = &d.message;
  switch (m->which_body) {
  case prbandit_ran_ControllerMessage_welcome_tag:
    printf("[\"welcome\",%" PRIu64 ",%" PRIu32 ",%" PRIu32 ",%" PRIu32 "]", m->body.welcome.session,
           m->body.welcome.protocol_version, m->body.welcome.report_period_ms, m->body.welcome.lease_ms);
    break;
  case prbandit_ran_ControllerMessage_reject_tag:
    printf("[\"reject\",");
    print_name(m->body.reject.reason);
    printf(",%" PRIu32 ",%" PRIu32 "]", m->body.reject.controller_version, m->body.reject.agent_version);
    break;
  case prbandit_ran_ControllerMessage_hello_request_tag:
    printf("[\"hello_request\",");
    print_name(m->body.hello_request.reason);
    printf("]");
    break;
  case prbandit_ran_ControllerMessage_set_quota_tag: {
    const prbandit_ran_SetQuota *q = &m->body.set_quota;
    printf("[\"set_quota\",%" PRIu64 ",%" PRIu64 ",%" PRIu32 ",", q->session, q->sequence, q->lease_ms);
    print_quotas(q->quotas, q->quotas_count);
    printf(",");
    print_bindings(q->bindings, q->bindings_count);
    printf(",%s]", d.too_large ? "true" : "false");
    break;
  }
  case prbandit_ran_ControllerMessage_release_tag:
    printf("[\"release\",%" PRIu64 ",%" PRIu64 "]", m->body.release.session, m->body.release.sequence);
    break;
  default:
    printf("[\"\"]");
  }
}

static bool read_direction(prbandit_direction_state *s) {
  const char *word[7];
  for (int i = 0; i < 7; i++)
    if (!(word[i] = strtok(NULL, " ")))
      return false;
  s->mcs = (uint8_t)atoi(word[0]);
  s->mcs_table = (uint8_t)atoi(word[1]);
  s->layers = (uint8_t)atoi(word[2]);
  s->bler = strtof(word[3], NULL);
  s->queued_bytes = strtoull(word[4], NULL, 10);
  s->lc_bytes = strtoull(word[5], NULL, 10);
  s->prb_slots = strtoull(word[6], NULL, 10);
  return true;
}

static const char *word(void) {
  const char *w = strtok(NULL, " ");
  return w ? w : "";
}

static uint64_t number(void) {
  return strtoull(word(), NULL, 10);
}

static void start_cell(void) {
  prbandit_ran_Hello cell = prbandit_ran_Hello_init_zero;
  logger log = {quiet, NULL};
  cell.protocol_version = PRBANDIT_PROTOCOL_VERSION;
  name_from_hex(word(), cell.cell_id, sizeof cell.cell_id);
  cell.prb = (uint32_t)number();
  cell.scs_khz = (uint32_t)number();
  cell.has_tdd = true;
  cell.tdd.period_slots = (uint32_t)number();
  cell.tdd.dl_slots = (uint32_t)number();
  cell.tdd.dl_symbols = (uint32_t)number();
  cell.tdd.ul_symbols = (uint32_t)number();
  cell.tdd.ul_slots = (uint32_t)number();
  name_from_hex(word(), cell.agent_version, sizeof cell.agent_version);
  cell.min_prb = (uint32_t)number();
  link_init(&link_, &cell, &log);
  memset(&config, 0, sizeof config);
  shot.n = 0;
  printf("-");
}

static void enforced(void) {
  static prbandit_ran_SliceUse uses[4 * MAX_RANGES];
  cell_time at;
  uint32_t n = 0;
  at.frame = (uint32_t)number();
  at.slot = (uint32_t)number();
  at.time_ns = number();
  for (const char *slice = word(); *slice && n < sizeof uses / sizeof *uses; slice = word()) {
    prbandit_ran_SliceUse *u = &uses[n++];
    name_from_hex(slice, u->slice, sizeof u->slice);
    u->direction = (prbandit_ran_Direction)number();
    u->max_new_prb = (uint32_t)number();
    u->new_prb_slots = number();
    u->retx_prb_slots = number();
    u->slots = (uint32_t)number();
  }
  if (link_.pending.id)
    link_enforced(&link_, at, uses, n);
  printf("-");
}

static void add_ue(void) {
  CHECK(shot.n < PRBANDIT_MAX_UES);
  prbandit_ue *ue = &shot.ues[shot.n++];
  memset(ue, 0, sizeof *ue);
  ue->rnti = (uint16_t)number();
  name_from_hex(word(), ue->ue_id, sizeof ue->ue_id);
  ue->snssai.sst = (uint8_t)number();
  ue->snssai.sd = (uint32_t)number();
  ue->cqi = (uint8_t)number();
  ue->snr_db = strtof(word(), NULL);
  CHECK(read_direction(&ue->ul) && read_direction(&ue->dl));
  ue->five_qi = (uint8_t)number();
  ue->priority_level = (uint8_t)number();
  for (const char *lcid = word(); *lcid && ue->n_channels < PRBANDIT_MAX_CHANNELS; lcid = word()) {
    prbandit_channel *c = &ue->channels[ue->n_channels++];
    c->lcid = (uint8_t)strtoul(lcid, NULL, 10);
    c->queued_bytes = (uint32_t)number();
  }
  printf("-");
}

static void add_slice(void) {
  prbandit_slice_name *s = &config.slices[config.n_slices++];
  name_from_hex(word(), s->slice, sizeof s->slice);
  s->snssai.sst = (uint8_t)number();
  s->snssai.sd = (uint32_t)number();
  printf("-");
}

static void report(void) {
  shot.frame = (uint32_t)number();
  shot.slot = (uint32_t)number();
  shot.time_ns = number();
  report_fill(&message, &shot, &config, &link_.in_force);
  shot.n = 0;
  size_t n = link_report(&link_, &message, &encoded);
  if (n)
    link_report_sent(&link_);
  print_hex(encoded.data, n);
}

static void plan_(void) {
  static plan p;
  prbandit_cell cell = {.n_prb = (uint16_t)link_.cell.prb, .min_prb = (uint16_t)number()};
  char why[128];
  if (!plan_build(&p, &link_.pending.what, &config, &cell, why, sizeof why)) {
    printf("null");
    return;
  }
  for (int d = 0; d < 2; d++) {
    printf(d ? "],[" : "[[");
    for (uint32_t i = 0; i < p.n_ranges; i++)
      printf("%s[%u,%u]", i ? "," : "", p.ranges[d][i].start, p.ranges[d][i].size);
  }
  printf("]]");
}

int main(void) {
  static char line[LINE];
  static uint8_t bytes[LINE / 2];
  while (fgets(line, sizeof line, stdin)) {
    line[strcspn(line, "\n")] = '\0';
    const char *command = strtok(line, " ");
    const uint8_t *out;
    size_t n;
    if (!command)
      continue;
    if (strcmp(command, "cell") == 0) {
      start_cell();
    } else if (strcmp(command, "tick") == 0) {
      link_tick(&link_, (int64_t)number());
      printf("-");
    } else if (strcmp(command, "receive") == 0) {
      int64_t now = (int64_t)number();
      n = from_hex(word(), bytes, sizeof bytes);
      link_receive(&link_, bytes, n, now);
      printf("-");
    } else if (strcmp(command, "peek") == 0) {
      n = link_to_send(&link_, &out);
      print_hex(out, n);
    } else if (strcmp(command, "send") == 0) {
      n = link_to_send(&link_, &out);
      print_hex(out, n);
      if (n)
        link_sent(&link_, (int64_t)number());
    } else if (strcmp(command, "not_sent") == 0) {
      link_not_sent(&link_, (int64_t)number());
      printf("-");
    } else if (strcmp(command, "reconnect") == 0) {
      printf(link_reconnect(&link_, (int64_t)number()) ? "true" : "false");
    } else if (strcmp(command, "enforced") == 0) {
      enforced();
    } else if (strcmp(command, "refuse") == 0) {
      if (link_.pending.id)
        link_not_enforceable(&link_, "as the script says");
      printf("-");
    } else if (strcmp(command, "slice") == 0) {
      add_slice();
    } else if (strcmp(command, "ue") == 0) {
      add_ue();
    } else if (strcmp(command, "report") == 0) {
      report();
    } else if (strcmp(command, "plan") == 0) {
      plan_();
    } else if (strcmp(command, "decode") == 0) {
      n = from_hex(word(), bytes, sizeof bytes);
      print_decoded(bytes, n);
    } else if (strcmp(command, "state") == 0) {
      print_state();
    } else {
      fprintf(stderr, "unknown command %s\n", command);
      return 1;
    }
    printf("\n");
    fflush(stdout);
  }
  return 0;
}
