/* The whole agent over a real socket: this program is the controller and the scheduler. */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

#include "hot.h"
#include "messages.h"

static const prbandit_cell CELL = {106, 5, 30, {5, 1, 10, 2, 3}};
static const prbandit_snssai NONE = {0, PRBANDIT_NO_SD};

/* ---- log ---- */

static atomic_bool hang, hung;
static void log_(void *context, int level, const char *text) {
  (void)context, (void)level;
  if (getenv("VERBOSE"))
    fprintf(stderr, "%s\n", text);
  while (atomic_load(&hang)) {
    atomic_store(&hung, true);
    usleep(1000);
  }
}

/* ---- controller ---- */

static void *context, *router;
static char endpoint[64];
static uint8_t peer[256];
static size_t peer_size;

static void bind_router(void) {
  size_t size = sizeof endpoint;
  context = zmq_ctx_new();
  router = zmq_socket(context, ZMQ_ROUTER);
  CHECK(zmq_setsockopt(router, ZMQ_LINGER, &(int){0}, sizeof(int)) == 0);
  CHECK(zmq_bind(router, *endpoint ? endpoint : "tcp://127.0.0.1:*") == 0);
  CHECK(zmq_getsockopt(router, ZMQ_LAST_ENDPOINT, endpoint, &size) == 0);
}

static void close_router(void) {
  zmq_close(router);
  zmq_ctx_term(context);
}

static void tell(from_controller m) {
  CHECK(zmq_send(router, peer, peer_size, ZMQ_SNDMORE) >= 0 && zmq_send(router, m.data, m.size, 0) >= 0);
}

/* ---- scheduler ---- */

static prbandit_agent *agent;
static bool scheduling = true;
static uint32_t nr_slots;

static uint32_t fill(void *unused, prbandit_ue *ues, uint32_t max) {
  (void)unused, (void)max;
  memset(ues, 0, sizeof *ues);
  ues->rnti = 0x4601;
  strcpy(ues->ue_id, "ue-1");
  ues->ul.mcs = 20, ues->ul.mcs_table = 1, ues->ul.layers = 1, ues->ul.queued_bytes = 12345;
  ues->dl = ues->ul;
  ues->snr_db = 20.5f;
  ues->snssai = (prbandit_snssai){1, 0xabcdef};
  ues->five_qi = 80, ues->priority_level = 68;
  ues->n_channels = 2;
  ues->channels[0] = (prbandit_channel){1, 45}, ues->channels[1] = (prbandit_channel){4, 12300};
  return 1;
}

static uint32_t ranges(void) {
  const prbandit_range *r;
  return prbandit_ranges(agent, PRBANDIT_UL, &r);
}

static void nr_slot(void) {
  if (scheduling) {
    prbandit_nr_slot(agent, nr_slots / 20, nr_slots % 20, fill, NULL);
    nr_slots++;
    for (prbandit_direction d = PRBANDIT_UL; d <= PRBANDIT_DL; d++) {
      const prbandit_range *r;
      uint32_t n = prbandit_ranges(agent, d, &r);
      uint32_t mine = prbandit_slice_of(agent, 0x4601, "ue-1", NONE);
      for (uint32_t i = 0; i < (n ? n : 1); i++)
        prbandit_used(agent, d, i, i == mine ? (n ? r[i].size : 106) : 0, 0);
    }
  }
  usleep(500);
}

/* The next message of a kind, while NR slots go on; false after `ms`. */
static bool hear(pb_size_t kind, prbandit_ran_GnbMessage *m, int ms) {
  static uint8_t data[32768];
  for (int64_t end = boottime_ns() + ms * NS_PER_MS; boottime_ns() < end; nr_slot()) {
    int n = zmq_recv(router, peer, sizeof peer, ZMQ_DONTWAIT);
    if (n < 0)
      continue;
    peer_size = (size_t)n;
    n = zmq_recv(router, data, sizeof data, 0);
    CHECK(n > 0);
    *m = decoded_gnb(data, (size_t)n);
    if (m->which_body == kind)
      return true;
  }
  return false;
}

enum {
  HELLO = prbandit_ran_GnbMessage_hello_tag,
  REPORT = prbandit_ran_GnbMessage_mac_report_tag,
  APPLIED = prbandit_ran_GnbMessage_applied_tag
};
static prbandit_ran_GnbMessage m;

static void begin(void) {
  prbandit_config config = {.cell_id = "cell-1"};
  char error[256] = "";
  strcpy(config.endpoint, endpoint);
  agent = prbandit_start(&config, &CELL, log_, NULL, error, sizeof error);
  CHECK(agent);
  CHECK(hear(HELLO, &m, 5000));
  CHECK(strcmp(m.body.hello.cell_id, "cell-1") == 0 && m.body.hello.prb == 106 && m.body.hello.tdd.ul_slots == 3);
  tell(welcome(7));
}

static prbandit_counters counters(void) {
  prbandit_counters c;
  prbandit_read_counters(agent, &c);
  return c;
}

static void test_a_session_from_hello_to_release(void) {
  begin();
  CHECK(hear(REPORT, &m, 5000));
  prbandit_ran_MacReport *r = &m.body.mac_report;
  CHECK(r->session == 7 && r->sequence == 1 && r->ues_count == 1 && r->time_ns > 1700000000ull * NS_PER_S);
  CHECK(r->ues[0].rnti == 0x4601 && strcmp(r->ues[0].ue_id, "ue-1") == 0 && r->ues[0].slice[0] == '\0');
  CHECK(r->ues[0].ul.queued_bytes == 12345 && r->ues[0].snr_db == 20.5f);
  CHECK(r->ues[0].has_snssai && r->ues[0].snssai.sst == 1 && r->ues[0].snssai.sd == 0xabcdef);
  CHECK(r->ues[0].five_qi == 80 && r->ues[0].priority_level == 68 && r->ues[0].dl_channels_count == 2);
  CHECK(r->ues[0].dl_channels[1].lcid == 4 && r->ues[0].dl_channels[1].queued_bytes == 12300);

  tell(quota(7, 1, 3000, 30));
  CHECK(hear(APPLIED, &m, 5000));
  prbandit_ran_Applied *a = &m.body.applied;
  CHECK(a->sequence == 1 && a->in_force_count == 1 && a->in_force[0].ul_prb == 30 && !a->lapsed);
  CHECK(a->use_count == 2 && a->use[0].slice[0] == '\0' && a->use[0].max_new_prb == 106 && a->use[0].slots > 0);
  CHECK(ranges() == 2);
  tell(quota(7, 2, 3000, 30));
  CHECK(hear(APPLIED, &m, 5000) && a->sequence == 2 && a->use_count == 4);
  CHECK(strcmp(a->use[0].slice, "ar") == 0 && a->use[0].max_new_prb == 30);
  CHECK(hear(REPORT, &m, 5000) && hear(REPORT, &m, 5000) && strcmp(r->ues[0].slice, "ar") == 0);

  prbandit_ran_ControllerMessage release = {.which_body = prbandit_ran_ControllerMessage_release_tag};
  release.body.release = (prbandit_ran_Release){7, 3};
  tell(encoded(&release));
  CHECK(hear(APPLIED, &m, 5000) && a->sequence == 3 && a->in_force_count == 0 && !a->lapsed && ranges() == 0);
  prbandit_widened(agent, PRBANDIT_UL, 0, 12);
  prbandit_counters c = counters();
  CHECK(c.widened == 1 && c.ues_left_out == 0 && c.sessions == 1 && c.quotas == 2 && c.releases == 1 && c.reports_sent > 2 && c.leases_lapsed == 0);
  prbandit_stop(agent);
}

static void test_quotas_beyond_the_carrier_are_all_prbs(void) {
  begin();
  prbandit_ran_ControllerMessage q = {.which_body = prbandit_ran_ControllerMessage_set_quota_tag};
  q.body.set_quota = (prbandit_ran_SetQuota){7, 1, 3000, 2, {{"a", 60, 60}, {"b", 60, 40}}, 0, {{"", ""}}};
  tell(encoded(&q));
  CHECK(hear(APPLIED, &m, 5000) && m.body.applied.lapsed && m.body.applied.in_force_count == 0);
  CHECK(ranges() == 0 && counters().refused_quotas == 1);
  prbandit_stop(agent);
}

static void test_without_nr_slots_nothing_is_acknowledged(void) {
  begin();
  CHECK(hear(REPORT, &m, 5000));
  scheduling = false;
  tell(quota(7, 1, 60000, 30));
  CHECK(!hear(APPLIED, &m, 300));
  scheduling = true;
  CHECK(hear(APPLIED, &m, 5000) && m.body.applied.sequence == 1);
  prbandit_stop(agent);
}

static void test_a_receipt_of_a_superseded_quota_does_not_acknowledge_its_successor(void) {
  begin();
  CHECK(hear(REPORT, &m, 5000));
  scheduling = false;
  tell(quota(7, 1, 60000, 30));
  while (counters().quotas < 1)
    usleep(1000);
  usleep(50000); /* the plan is handed over */
  atomic_store(&hung, false);
  atomic_store(&hang, true);
  tell((from_controller){1, {0xff}});
  while (!atomic_load(&hung))
    usleep(1000);
  scheduling = true;
  nr_slot(); /* takes quota 1 */
  CHECK(ranges() == 2);
  scheduling = false;
  tell(quota(7, 2, 60000, 40));
  usleep(50000); /* it waits in the socket */
  atomic_store(&hang, false);
  CHECK(!hear(APPLIED, &m, 300));
  scheduling = true;
  CHECK(hear(APPLIED, &m, 5000) && m.body.applied.sequence == 2 && m.body.applied.in_force[0].ul_prb == 40);
  prbandit_stop(agent);
}

static void test_a_hung_agent_thread_keeps_no_quota_past_its_lease(void) {
  begin();
  tell(quota(7, 1, 300, 30));
  CHECK(hear(APPLIED, &m, 5000) && ranges() == 2);
  atomic_store(&hung, false);
  atomic_store(&hang, true);
  tell((from_controller){1, {0xff}}); /* it logs this, and the log does not return */
  for (int64_t end = boottime_ns() + 5 * NS_PER_S; ranges() && boottime_ns() < end;)
    nr_slot();
  CHECK(atomic_load(&hung) && ranges() == 0);
  atomic_store(&hang, false);
  CHECK(hear(APPLIED, &m, 5000) && m.body.applied.lapsed && counters().leases_lapsed == 1);
  prbandit_stop(agent);
}

static void test_a_controller_that_vanishes_and_returns(void) {
  begin();
  tell(quota(7, 1, 400, 30));
  CHECK(hear(APPLIED, &m, 5000) && ranges() == 2);
  close_router();
  for (int64_t end = boottime_ns() + 5 * NS_PER_S; ranges() && boottime_ns() < end;)
    nr_slot();
  CHECK(ranges() == 0);
  bind_router();
  CHECK(hear(REPORT, &m, 10000)); /* of a session that this controller does not know */
  prbandit_ran_ControllerMessage request = {.which_body = prbandit_ran_ControllerMessage_hello_request_tag};
  tell(encoded(&request));
  CHECK(hear(HELLO, &m, 5000));
  tell(welcome(8));
  CHECK(hear(REPORT, &m, 5000) && m.body.mac_report.session == 8);
  tell(quota(8, 1, 3000, 20));
  CHECK(hear(APPLIED, &m, 5000) && ranges() == 2);
  prbandit_stop(agent);
}

/* libzmq's heartbeats would abort the gNB: their timer meets a broken connection whose pipe is full. */
static void test_a_hung_agent_thread_and_a_controller_that_says_much_and_ends(void) {
  begin();
  CHECK(hear(REPORT, &m, 5000));
  atomic_store(&hung, false);
  atomic_store(&hang, true);
  for (int i = 0; i < 2000; i++)
    tell((from_controller){1, {0xff}});
  while (!atomic_load(&hung))
    usleep(1000);
  usleep(300000);
  close_router();
  usleep(3500000);
  bind_router();
  atomic_store(&hang, false);
  CHECK(hear(REPORT, &m, 10000));
  CHECK(counters().malformed >= 100 && counters().sessions == 1);
  prbandit_stop(agent);
}

static void test_odd_frames_are_counted(void) {
  begin();
  CHECK(hear(REPORT, &m, 5000));
  CHECK(zmq_send(router, peer, peer_size, ZMQ_SNDMORE) >= 0 && zmq_send(router, "a", 1, ZMQ_SNDMORE) >= 0 &&
        zmq_send(router, "b", 1, 0) >= 0);
  tell((from_controller){0, {0}});
  tell(quota(7, 1, 3000, 30));
  CHECK(hear(APPLIED, &m, 5000) && counters().malformed == 2);
  prbandit_stop(agent);
}

static void test_a_bad_start_gives_the_reason(void) {
  prbandit_config config = {.endpoint = "tcp://192.0.2.1:5555", .cell_id = "cell-1"};
  prbandit_cell cell = CELL;
  char error[256] = "";
  CHECK(!prbandit_start(&config, &cell, log_, NULL, error, sizeof error));
  CHECK_TEXT(error, "not a loopback address");
  strcpy(config.endpoint, endpoint);
  cell.n_prb = 276;
  CHECK(!prbandit_start(&config, &cell, log_, NULL, error, sizeof error));
  CHECK_TEXT(error, "276 PRB");
  strcpy(config.endpoint, "tcp://127.0.0.1:1;[::1]:x:5");
  CHECK(!prbandit_start(&config, &CELL, log_, NULL, error, sizeof error) && error[0]);
  prbandit_stop(NULL);
}

int main(void) {
  bind_router();
  test_a_session_from_hello_to_release();
  test_quotas_beyond_the_carrier_are_all_prbs();
  test_without_nr_slots_nothing_is_acknowledged();
  test_a_receipt_of_a_superseded_quota_does_not_acknowledge_its_successor();
  test_a_hung_agent_thread_keeps_no_quota_past_its_lease();
  test_a_controller_that_vanishes_and_returns();
  test_a_hung_agent_thread_and_a_controller_that_says_much_and_ends();
  test_odd_frames_are_counted();
  test_a_bad_start_gives_the_reason();
  close_router();
  return 0;
}
