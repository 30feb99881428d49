#include "link.h"

#include <inttypes.h>
#include <pb_encode.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "decode.h"

enum { MIN_REPORT_PERIOD_MS = 10, MAX_REPORT_PERIOD_MS = 200 };
static const int64_t HELLO_TIMEOUT = 1 * NS_PER_S, HELLO_BACKOFF = 5 * NS_PER_S, REJECT_RETRY = 10 * NS_PER_S;
static const int64_t RECONNECT = 5 * NS_PER_S;

void link_init(ran_link *link, const prbandit_ran_Hello *cell, const logger *log) {
  memset(link, 0, sizeof *link);
  link->cell = *cell;
  link->log = *log;
  link->hello.wait = HELLO_TIMEOUT;
  link->hello.due = INT64_MIN;
}

static void ignore(ran_link *link, uint64_t *counter, const char *name, const char *why) {
  if (log_due(++*counter))
    log_line(&link->log, LOG_WARNING, "cell %s: %s, message ignored (%s: %" PRIu64 ")", link->cell.cell_id, why,
             name, *counter);
}

#define IGNORE(link, counter, ...)                                  \
  do {                                                              \
    char why_[192];                                                 \
    snprintf(why_, sizeof why_, __VA_ARGS__);                       \
    ignore(link, &(link)->counters.counter, #counter, why_);        \
  } while (0)

/* For what is worth a line each time, unless a peer makes it happen all the time. */
static bool once_a_second(int64_t *last, int64_t now) {
  if (*last && now - *last < NS_PER_S)
    return false;
  *last = now;
  return true;
}

static size_t encode(const prbandit_ran_GnbMessage *message, uint8_t *data, size_t size) {
  pb_ostream_t out = pb_ostream_from_buffer(data, size);
  /* The buffers have the size that nanopb gives for their message, so this holds. */
  return pb_encode(&out, prbandit_ran_GnbMessage_fields, message) ? out.bytes_written : 0;
}

/* ---- out ------------------------------------------------------------------------------------------------- */

size_t link_to_send(const ran_link *link, const uint8_t **data) {
  if (link->hello.waiting) {
    *data = link->hello.data;
    return link->hello.size;
  }
  const link_ack *ack = &link->acks.ring[link->acks.first];
  *data = ack->data;
  return link->acks.n ? ack->size : 0;
}

void link_sent(ran_link *link, int64_t now) {
  if (link->hello.waiting) {
    link->hello.waiting = false;
    link->hello.due = now + (link->rejected ? REJECT_RETRY : link->hello.wait);
    link->hello.wait = 2 * link->hello.wait < HELLO_BACKOFF ? 2 * link->hello.wait : HELLO_BACKOFF;
  } else if (link->acks.n) {
    link->acks.first = (link->acks.first + 1) % MAX_PENDING_ACKS;
    link->acks.n--;
  }
  link_report_sent(link);
}

void link_not_sent(ran_link *link, int64_t now) {
  if (!link->silent) {
    link->silent = true;
    link->silent_since = now;
  }
}

void link_report_sent(ran_link *link) {
  /* Without a session only an answer shows that the controller is there. */
  if (link->session)
    link->silent = false;
}

bool link_reconnect(ran_link *link, int64_t now) {
  if (!link->silent || now - link->silent_since < RECONNECT)
    return false;
  link->silent_since = now;
  if (!link->session) {
    link->hello.wait = HELLO_TIMEOUT;
    link->hello.due = now;
  }
  if (log_due(++link->counters.reconnects))
    log_line(&link->log, LOG_WARNING,
             "cell %s: no answer from the controller for %d s, connecting anew: is it there, is its key the one"
             " that this agent has, does it know the key of this cell? (reconnects: %" PRIu64 ")",
             link->cell.cell_id, (int)(RECONNECT / NS_PER_S), link->counters.reconnects);
  return true;
}

size_t link_report(ran_link *link, prbandit_ran_GnbMessage *report, link_message *out) {
  if (!link->session)
    return 0;
  report->which_body = prbandit_ran_GnbMessage_mac_report_tag;
  report->body.mac_report.session = link->session;
  report->body.mac_report.sequence = ++link->reports;
  return out->size = encode(report, out->data, sizeof out->data);
}

static void acknowledge(ran_link *link) {
  if (link->acks.n == MAX_PENDING_ACKS) {
    /* The controller asks again for the one that it misses. */
    link->acks.first = (link->acks.first + 1) % MAX_PENDING_ACKS;
    link->acks.n--;
    link->counters.acks_superseded++;
  }
  link->acks.ring[(link->acks.first + link->acks.n++) % MAX_PENDING_ACKS] = link->last_ack;
}

bool link_will_acknowledge(const ran_link *link) {
  return link->session && link->pending.session == link->session;
}

static bool has_quota(const link_quotas *quotas, const char *slice) {
  for (uint32_t i = 0; i < quotas->n_quotas; i++)
    if (strcmp(quotas->quotas[i].slice, slice) == 0)
      return true;
  return false;
}

void link_enforced(ran_link *link, cell_time at, const prbandit_ran_SliceUse *uses, uint32_t n_uses) {
  bool say = link_will_acknowledge(link);
  link->in_force = link->pending.what;
  link->pending.id = 0;
  /* A lapse of quotas of an earlier session is not said: they have no sequence in this one. */
  if (!say)
    return;
  prbandit_ran_GnbMessage message = prbandit_ran_GnbMessage_init_zero;
  message.which_body = prbandit_ran_GnbMessage_applied_tag;
  prbandit_ran_Applied *applied = &message.body.applied;
  applied->session = link->session;
  applied->sequence = link->pending.sequence;
  applied->time_ns = at.time_ns;
  applied->frame = at.frame;
  applied->slot = at.slot;
  applied->lapsed = link->pending.lapsed;
  applied->in_force_count = (pb_size_t)link->in_force.n_quotas;
  memcpy(applied->in_force, link->in_force.quotas, link->in_force.n_quotas * sizeof *applied->in_force);
  for (int with_quota = 1; with_quota >= 0; with_quota--)
    for (uint32_t i = 0; i < n_uses; i++) {
      if (has_quota(&link->in_force, uses[i].slice) != with_quota)
        continue;
      if (applied->use_count < MAX_USES)
        applied->use[applied->use_count++] = uses[i];
      else
        link->counters.uses_left_out++;
    }
  link->last_ack.size = encode(&message, link->last_ack.data, sizeof link->last_ack.data);
  acknowledge(link);
}

static void enforce_nothing(ran_link *link, uint64_t session, uint64_t sequence, bool lapsed) {
  memset(&link->pending, 0, sizeof link->pending);
  link->pending.id = ++link->enforce_id;
  link->pending.session = session;
  link->pending.sequence = sequence;
  link->pending.lapsed = lapsed;
}

void link_not_enforceable(ran_link *link, const char *why) {
  IGNORE(link, refused_quotas, "quota %" PRIu64 " cannot be put in force: %s", link->pending.sequence, why);
  link->lease.held = false;
  enforce_nothing(link, link->pending.session, link->pending.sequence, true);
}

/* ---- time ------------------------------------------------------------------------------------------------ */

static void say_hello(ran_link *link) {
  prbandit_ran_GnbMessage message = prbandit_ran_GnbMessage_init_zero;
  message.which_body = prbandit_ran_GnbMessage_hello_tag;
  message.body.hello = link->cell;
  link->hello.size = encode(&message, link->hello.data, sizeof link->hello.data);
  link->hello.waiting = true;
  link->counters.hellos++;
}

void link_tick(ran_link *link, int64_t now) {
  if (!link->session && !link->hello.waiting && now >= link->hello.due) {
    say_hello(link);
    link_not_sent(link, now);
  }
  if (link->lease.held && now >= link->lease.ends) {
    link->lease.held = false;
    link->counters.leases_lapsed++;
    if (once_a_second(&link->logged_lapse, now))
      log_line(&link->log, LOG_WARNING, "cell %s: the lease of quota %" PRIu64 " has ended, back to all PRBs",
               link->cell.cell_id, link->lease.sequence);
    enforce_nothing(link, link->lease.session, link->lease.sequence, true);
  }
}

/* ---- in -------------------------------------------------------------------------------------------------- */

static void end_session(ran_link *link) {
  link->session = 0;
  link->last_sequence = 0;
  link->last_ack.size = 0;
  link->reports = 0;
  link->acks.n = 0;
  link->hello.wait = HELLO_TIMEOUT;
}

static void on_welcome(ran_link *link, const prbandit_ran_Welcome *welcome, int64_t now) {
  if (welcome->protocol_version != PRBANDIT_PROTOCOL_VERSION) {
    IGNORE(link, refused_welcomes, "the controller speaks version %" PRIu32 ", this agent %d",
           welcome->protocol_version, PRBANDIT_PROTOCOL_VERSION);
    return;
  }
  if (!welcome->session || welcome->report_period_ms < MIN_REPORT_PERIOD_MS ||
      welcome->report_period_ms > MAX_REPORT_PERIOD_MS) {
    IGNORE(link, refused_welcomes, "session %" PRIu64 ", report_period_ms %" PRIu32 " (not %d..%d)",
           welcome->session, welcome->report_period_ms, MIN_REPORT_PERIOD_MS, MAX_REPORT_PERIOD_MS);
    return;
  }
  link->report_period_ms = welcome->report_period_ms;
  link->rejected = false;
  link->hello.waiting = false;
  if (welcome->session != link->session) {
    end_session(link);
    link->session = welcome->session;
    link->counters.sessions++;
    if (once_a_second(&link->logged_session, now))
      log_line(&link->log, LOG_INFORMATION, "cell %s: session %" PRIu64, link->cell.cell_id, link->session);
  }
}

static void on_reject(ran_link *link, const prbandit_ran_Reject *reject, int64_t now) {
  end_session(link);
  link->hello.waiting = false;
  link->rejected = true;
  if (log_due(++link->counters.rejects))
    log_line(&link->log, LOG_ERROR,
             "cell %s: rejected by the controller: %s (it speaks version %" PRIu32 ", this agent %d)",
             link->cell.cell_id, reject->reason[0] ? reject->reason : "no reason given",
             reject->controller_version, PRBANDIT_PROTOCOL_VERSION);
  link->hello.due = now + REJECT_RETRY;
}

static void on_hello_request(ran_link *link, const prbandit_ran_HelloRequest *request) {
  link->counters.hello_requests++;
  if (!link->session)
    return; /* The Hello is on its way, or its timer runs. */
  if (log_due(link->counters.hello_requests))
    log_line(&link->log, LOG_INFORMATION, "cell %s: the controller asks for a Hello: %s", link->cell.cell_id,
             request->reason);
  end_session(link);
  say_hello(link);
}

static bool is_queued(const ran_link *link, const link_ack *ack) {
  for (uint32_t i = 0; i < link->acks.n; i++) {
    const link_ack *queued = &link->acks.ring[(link->acks.first + i) % MAX_PENDING_ACKS];
    if (queued->size == ack->size && memcmp(queued->data, ack->data, ack->size) == 0)
      return true;
  }
  return false;
}

static bool is_new(ran_link *link, uint64_t session, uint64_t sequence) {
  if (!link->session || session != link->session) {
    IGNORE(link, wrong_session, "session %" PRIu64 ", not %" PRIu64, session, link->session);
    return false;
  }
  if (sequence > link->last_sequence)
    return true;
  if (sequence == link->last_sequence && sequence) {
    link->counters.repeated_sequence++;
    /* With an enforcement under way its acknowledgement comes by itself. */
    if (!link->pending.id && link->last_ack.size && !is_queued(link, &link->last_ack))
      acknowledge(link);
    return false;
  }
  IGNORE(link, old_sequence, "sequence %" PRIu64 " after %" PRIu64, sequence, link->last_sequence);
  return false;
}

/* Whether a quota can be taken; else why not. */
static bool check_quota(const ran_link *link, const decoded *d, char *why, size_t size) {
  const prbandit_ran_SetQuota *m = &d->message.body.set_quota;
#define REFUSE(...) return snprintf(why, size, __VA_ARGS__), false
  if (m->lease_ms < 1 || m->lease_ms > MAX_LEASE_MS)
    REFUSE("lease_ms: %" PRIu32 " is not in 1..%u", m->lease_ms, MAX_LEASE_MS);
  if (d->too_large)
    REFUSE("more than %d quotas or %d bindings, or a name of more than %d bytes", PRBANDIT_MAX_SLICES,
           PRBANDIT_MAX_BINDINGS, PRBANDIT_NAME_SIZE - 1);
  for (uint32_t i = 0; i < m->quotas_count; i++) {
    const prbandit_ran_SliceQuota *q = &m->quotas[i];
    if (!q->slice[0])
      REFUSE("quotas.slice: empty");
    if (q->ul_prb > link->cell.prb || q->dl_prb > link->cell.prb)
      REFUSE("quotas: slice %s is given %" PRIu32 " UL and %" PRIu32 " DL PRB, the carrier has %" PRIu32,
             q->slice, q->ul_prb, q->dl_prb, link->cell.prb);
    for (uint32_t j = 0; j < i; j++)
      if (strcmp(m->quotas[j].slice, q->slice) == 0)
        REFUSE("quotas: slice %s is named twice", q->slice);
  }
  for (uint32_t i = 0; i < m->bindings_count; i++) {
    const prbandit_ran_UeBinding *b = &m->bindings[i];
    if (!b->ue_id[0])
      REFUSE("bindings.ue_id: empty");
    for (uint32_t j = 0; j < i; j++)
      if (strcmp(m->bindings[j].ue_id, b->ue_id) == 0)
        REFUSE("bindings: UE %s is named twice", b->ue_id);
  }
#undef REFUSE
  return true;
}

static void on_set_quota(ran_link *link, const decoded *d, int64_t now) {
  const prbandit_ran_SetQuota *m = &d->message.body.set_quota;
  char why[160];
  if (!is_new(link, m->session, m->sequence))
    return;
  if (!check_quota(link, d, why, sizeof why)) {
    IGNORE(link, refused_quotas, "SetQuota %" PRIu64 ": %s", m->sequence, why);
    return;
  }
  link->last_sequence = m->sequence;
  link->lease.held = true;
  link->lease.ends = now + m->lease_ms * NS_PER_MS;
  link->lease.session = m->session;
  link->lease.sequence = m->sequence;
  link->counters.quotas++;
  enforce_nothing(link, m->session, m->sequence, false);
  link->pending.what.n_quotas = m->quotas_count;
  link->pending.what.n_bindings = m->bindings_count;
  memcpy(link->pending.what.quotas, m->quotas, m->quotas_count * sizeof *m->quotas);
  memcpy(link->pending.what.bindings, m->bindings, m->bindings_count * sizeof *m->bindings);
}

static void on_release(ran_link *link, const prbandit_ran_Release *m) {
  if (!is_new(link, m->session, m->sequence))
    return;
  link->last_sequence = m->sequence;
  link->lease.held = false;
  link->counters.releases++;
  enforce_nothing(link, m->session, m->sequence, false);
}

void link_receive(ran_link *link, const uint8_t *data, size_t size, int64_t now) {
  decoded d;
  if (size > MAX_MESSAGE_SIZE || !decode_controller_message(data, size, &d)) {
    IGNORE(link, malformed, "message of %zu bytes", size);
    return;
  }
  if (d.message.which_body)
    link->silent = false;
  switch (d.message.which_body) {
  case prbandit_ran_ControllerMessage_welcome_tag: on_welcome(link, &d.message.body.welcome, now); break;
  case prbandit_ran_ControllerMessage_reject_tag: on_reject(link, &d.message.body.reject, now); break;
  case prbandit_ran_ControllerMessage_hello_request_tag:
    on_hello_request(link, &d.message.body.hello_request);
    break;
  case prbandit_ran_ControllerMessage_set_quota_tag: on_set_quota(link, &d, now); break;
  case prbandit_ran_ControllerMessage_release_tag: on_release(link, &d.message.body.release); break;
  default: IGNORE(link, malformed, "message without a known body");
  }
}
