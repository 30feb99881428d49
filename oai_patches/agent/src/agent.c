#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zmq.h>

#include "config.h"
#include "report.h"

enum {
  TICK_MS = 5,         /* reports and leases are this late at most */
  TICK_URGENT_MS = 1,  /* while the scheduler's receipt is awaited: it cannot wake this thread */
  MAX_RECEIVED = 64    /* messages taken before timers and reports have their turn */
};

struct prbandit_agent {
  hot_side hot;
  prbandit_config config;
  prbandit_cell cell;
  logger log;
  pthread_t thread;
  atomic_bool stop;
  pthread_mutex_t lock; /* of what follows; no hot call takes it */
  pthread_cond_t started;
  enum { STARTING, RUNNING, FAILED } state;
  char error[256];
  prbandit_counters counters;
  /* The agent thread's own. */
  void *context, *socket;
  ran_link link;
  link_quotas bound; /* the last bindings that came, to name slices in reports; they outlive their lease */
  uint64_t planned;  /* id of the link_enforce that the last plan carries out */
  use_ledger ledger;
  uint64_t unsent_reports, widened_logged;
  prbandit_ran_GnbMessage report;
  link_message message;
};

/* ---- socket ---------------------------------------------------------------------------------------------- */

static bool set_option(void *socket, int option, int value) {
  return zmq_setsockopt(socket, option, &value, sizeof value) == 0;
}

static bool set_keys(void *socket, const prbandit_config *c) {
  return !c->curve_server_public[0] ||
         (zmq_setsockopt(socket, ZMQ_CURVE_SERVERKEY, c->curve_server_public, 41) == 0 &&
          zmq_setsockopt(socket, ZMQ_CURVE_PUBLICKEY, c->curve_public, 41) == 0 &&
          zmq_setsockopt(socket, ZMQ_CURVE_SECRETKEY, c->curve_secret, 41) == 0);
}

static bool open_socket(prbandit_agent *a) {
  const prbandit_config *c = &a->config;
  a->context = zmq_ctx_new();
  a->socket = a->context ? zmq_socket(a->context, ZMQ_DEALER) : NULL;
  void *s = a->socket;
  return s && set_option(s, ZMQ_LINGER, 0) && set_option(s, ZMQ_IMMEDIATE, 1) && set_option(s, ZMQ_SNDHWM, 100) &&
         set_option(s, ZMQ_RCVHWM, 100) &&
         /* Not ZMQ's heartbeats: their timer aborts where it meets a broken connection whose pipe is full. */
         set_option(s, ZMQ_TCP_KEEPALIVE, 1) && set_option(s, ZMQ_TCP_KEEPALIVE_IDLE, 2) &&
         set_option(s, ZMQ_TCP_KEEPALIVE_INTVL, 1) && set_option(s, ZMQ_TCP_KEEPALIVE_CNT, 3) &&
         set_option(s, ZMQ_TCP_MAXRT, 5000) &&
         set_option(s, ZMQ_RECONNECT_IVL, 100) && set_option(s, ZMQ_RECONNECT_IVL_MAX, 1000) &&
         zmq_setsockopt(s, ZMQ_MAXMSGSIZE, &(int64_t){MAX_MESSAGE_SIZE}, sizeof(int64_t)) == 0 &&
         (!strchr(c->endpoint, '[') || set_option(s, ZMQ_IPV6, 1)) &&
         set_keys(s, c) && zmq_connect(s, c->endpoint) == 0;
}

static void close_socket(prbandit_agent *a) {
  if (a->socket)
    zmq_close(a->socket);
  if (a->context)
    zmq_ctx_term(a->context);
}

static void send_control(prbandit_agent *a, int64_t now) {
  const uint8_t *data;
  size_t size;
  while ((size = link_to_send(&a->link, &data)) != 0) {
    if (zmq_send(a->socket, data, size, ZMQ_DONTWAIT) < 0) {
      link_not_sent(&a->link, now);
      return;
    }
    link_sent(&a->link, now);
  }
}

static void reconnect(prbandit_agent *a, int64_t now) {
  if (!link_reconnect(&a->link, now))
    return;
  zmq_disconnect(a->socket, a->config.endpoint);
  if (zmq_connect(a->socket, a->config.endpoint) != 0)
    log_line(&a->log, LOG_ERROR, "cell %s: %s: %s", a->config.cell_id, a->config.endpoint, zmq_strerror(zmq_errno()));
}

/* One message, of all its frames. False where there is none. */
static bool receive_one(prbandit_agent *a) {
  zmq_msg_t frame;
  zmq_msg_init(&frame);
  if (zmq_msg_recv(&frame, a->socket, ZMQ_DONTWAIT) < 0) {
    zmq_msg_close(&frame);
    return false;
  }
  bool single = !zmq_msg_more(&frame);
  if (single)
    link_receive(&a->link, zmq_msg_data(&frame), zmq_msg_size(&frame), boottime_ns());
  else
    a->link.counters.malformed++;
  while (zmq_msg_more(&frame) && zmq_msg_recv(&frame, a->socket, ZMQ_DONTWAIT) >= 0)
    ;
  zmq_msg_close(&frame);
  return true;
}

/* ---- between link and scheduler -------------------------------------------------------------------------- */

static void plan_pending(prbandit_agent *a) {
  char why[128];
  const link_enforce *pending = &a->link.pending;
  if (!pending->id || pending->id == a->planned)
    return;
  plan *p = hot_next_plan(&a->hot);
  while (!plan_build(p, &pending->what, &a->config, &a->cell, why, sizeof why))
    link_not_enforceable(&a->link, why); /* Then no quotas are pending, which always fits. */
  if (pending->what.n_quotas || pending->what.n_bindings)
    a->bound = pending->what;
  p->id = a->planned = pending->id;
  p->expires = a->link.lease.ends;
  hot_hand_over(&a->hot);
}

static void take_receipt(prbandit_agent *a) {
  const receipt *r = hot_receipt(&a->hot);
  if (!r)
    return;
  a->link.counters.uses_left_out += ledger_add(&a->ledger, r);
  cell_time at = r->at;
  uint64_t id = r->plan_id;
  hot_receipt_read(&a->hot);
  /* A plan that was superseded meanwhile is not acknowledged: its successor will be. */
  if (!a->link.pending.id || id != a->link.pending.id)
    return;
  bool said = link_will_acknowledge(&a->link);
  link_enforced(&a->link, at, a->ledger.uses, a->ledger.n);
  if (said)
    a->ledger.n = 0;
}

static void send_report(prbandit_agent *a, int64_t now) {
  unsigned period = a->link.session ? a->link.report_period_ms : 0;
  atomic_store_explicit(&a->hot.report_period_ms, period, memory_order_relaxed);
  const snapshot *s = hot_snapshot(&a->hot);
  if (!s || !a->link.session)
    return;
  report_fill(&a->report, s, &a->config, &a->bound);
  size_t size = link_report(&a->link, &a->report, &a->message);
  if (size && zmq_send(a->socket, a->message.data, size, ZMQ_DONTWAIT) >= 0) {
    a->link.counters.reports_sent++;
    link_report_sent(&a->link);
  } else {
    a->unsent_reports++;
    link_not_sent(&a->link, now);
  }
}

static void publish_counters(prbandit_agent *a) {
  pthread_mutex_lock(&a->lock);
  a->counters = a->link.counters;
  a->counters.reports_dropped = a->unsent_reports;
  pthread_mutex_unlock(&a->lock);
  uint64_t widened = atomic_load_explicit(&a->hot.widened, memory_order_relaxed);
  if (widened >= 2 * a->widened_logged && widened) {
    a->widened_logged = widened;
    log_line(&a->log, LOG_INFORMATION,
             "cell %s: %" PRIu64 " HARQ retransmissions went outside their slice's range, by %" PRIu64
             " PRB in all",
             a->config.cell_id, widened, atomic_load_explicit(&a->hot.widened_prb, memory_order_relaxed));
  }
}

/* ---- the agent's thread ---------------------------------------------------------------------------------- */

static void tell_start(prbandit_agent *a, bool good, const char *error) {
  pthread_mutex_lock(&a->lock);
  a->state = good ? RUNNING : FAILED;
  snprintf(a->error, sizeof a->error, "%s: %s", a->config.endpoint, good ? "" : error);
  pthread_cond_signal(&a->started);
  pthread_mutex_unlock(&a->lock);
}

static void *run(void *argument) {
  prbandit_agent *a = argument;
  bool good = open_socket(a);
  tell_start(a, good, zmq_strerror(zmq_errno()));
  while (good && !atomic_load(&a->stop)) {
    int64_t now = boottime_ns();
    link_tick(&a->link, now);
    take_receipt(a);
    plan_pending(a);
    send_control(a, now);
    send_report(a, now);
    reconnect(a, now);
    publish_counters(a);
    zmq_pollitem_t item = {.socket = a->socket, .events = ZMQ_POLLIN};
    if (zmq_poll(&item, 1, a->link.pending.id ? TICK_URGENT_MS : TICK_MS) > 0)
      for (int i = 0; i < MAX_RECEIVED && receive_one(a); i++)
        ;
  }
  close_socket(a);
  return NULL;
}

/* The gNB's own threads have real-time priorities and signal handlers: this one takes no part in either. */
static int start_thread(prbandit_agent *a) {
  pthread_attr_t attributes;
  sigset_t all, before;
  pthread_attr_init(&attributes);
  pthread_attr_setinheritsched(&attributes, PTHREAD_EXPLICIT_SCHED);
  pthread_attr_setschedpolicy(&attributes, SCHED_OTHER);
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int error = pthread_create(&a->thread, &attributes, run, a);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  pthread_attr_destroy(&attributes);
  if (!error)
    pthread_setname_np(a->thread, "prbandit");
  return error;
}

/* ---- calls ----------------------------------------------------------------------------------------------- */

static prbandit_ran_Hello hello_of(const prbandit_config *config, const prbandit_cell *cell) {
  prbandit_ran_Hello hello = prbandit_ran_Hello_init_zero;
  hello.protocol_version = PRBANDIT_PROTOCOL_VERSION;
  strcpy(hello.cell_id, config->cell_id);
  hello.prb = cell->n_prb;
  hello.scs_khz = cell->scs_khz;
  hello.has_tdd = true;
  hello.tdd.period_slots = cell->tdd.period_slots;
  hello.tdd.dl_slots = cell->tdd.dl_slots;
  hello.tdd.dl_symbols = cell->tdd.dl_symbols;
  hello.tdd.ul_symbols = cell->tdd.ul_symbols;
  hello.tdd.ul_slots = cell->tdd.ul_slots;
  if (cell->tdd.period_slots == cell->tdd.dl_slots + cell->tdd.ul_slots) {
    /* The link has a mixed NR slot in every pattern: here the last DL one, all of whose symbols are DL. */
    hello.tdd.dl_slots--;
    hello.tdd.dl_symbols = 14;
  }
  hello.min_prb = cell->min_prb;
  strcpy(hello.agent_version, "prbandit " PRBANDIT_AGENT_VERSION);
  return hello;
}

static void destroy(prbandit_agent *a) {
  pthread_cond_destroy(&a->started);
  pthread_mutex_destroy(&a->lock);
  free(a);
}

prbandit_agent *prbandit_start(const prbandit_config *config, const prbandit_cell *cell, prbandit_log_fn log,
                               void *log_context, char *error, size_t error_size) {
  if (!config_is_usable(config, error, error_size) || !cell_is_usable(cell, error, error_size))
    return NULL;
  prbandit_agent *a = aligned_alloc(_Alignof(prbandit_agent), sizeof *a);
  if (!a) {
    snprintf(error, error_size, "no memory");
    return NULL;
  }
  memset(a, 0, sizeof *a);
  hot_init(&a->hot);
  a->config = *config;
  a->cell = *cell;
  a->log = (logger){log, log_context};
  prbandit_ran_Hello hello = hello_of(config, cell);
  link_init(&a->link, &hello, &a->log);
  pthread_mutex_init(&a->lock, NULL);
  pthread_cond_init(&a->started, NULL);
  int failure = start_thread(a);
  if (failure) {
    snprintf(error, error_size, "the agent's thread: %s", strerror(failure));
    destroy(a);
    return NULL;
  }
  pthread_mutex_lock(&a->lock);
  while (a->state == STARTING)
    pthread_cond_wait(&a->started, &a->lock);
  bool good = a->state == RUNNING;
  pthread_mutex_unlock(&a->lock);
  if (good)
    return a;
  pthread_join(a->thread, NULL);
  snprintf(error, error_size, "%s", a->error);
  destroy(a);
  return NULL;
}

void prbandit_stop(prbandit_agent *a) {
  if (!a)
    return;
  atomic_store(&a->stop, true);
  pthread_join(a->thread, NULL);
  destroy(a);
}

void prbandit_nr_slot(prbandit_agent *a, uint32_t frame, uint32_t slot, prbandit_snapshot_fn fill, void *context) {
  hot_nr_slot(&a->hot, frame, slot, fill, context);
}

uint32_t prbandit_ranges(const prbandit_agent *a, prbandit_direction direction, const prbandit_range **ranges) {
  return hot_ranges(&a->hot, direction, ranges);
}

uint32_t prbandit_slice_of(const prbandit_agent *a, uint16_t rnti, const char *ue_id, prbandit_snssai snssai) {
  (void)rnti; /* An RNTI can be another UE's tomorrow; the UE id cannot. */
  return hot_slice_of(&a->hot, ue_id, snssai);
}

void prbandit_used(prbandit_agent *a, prbandit_direction direction, uint32_t range, uint32_t new_prb,
                   uint32_t retx_prb) {
  hot_used(&a->hot, direction, range, new_prb, retx_prb);
}

void prbandit_widened(prbandit_agent *a, prbandit_direction direction, uint32_t range, uint32_t prb) {
  (void)direction;
  (void)range;
  hot_widened(&a->hot, prb);
}

void prbandit_read_counters(const prbandit_agent *agent, prbandit_counters *counters) {
  prbandit_agent *a = (prbandit_agent *)agent; /* its lock */
  pthread_mutex_lock(&a->lock);
  *counters = a->counters;
  pthread_mutex_unlock(&a->lock);
  counters->reports_dropped += atomic_load_explicit(&a->hot.reports_dropped, memory_order_relaxed);
  counters->ues_left_out = atomic_load_explicit(&a->hot.ues_left_out, memory_order_relaxed);
  counters->widened = atomic_load_explicit(&a->hot.widened, memory_order_relaxed);
}
