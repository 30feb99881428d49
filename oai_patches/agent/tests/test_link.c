/* The protocol core alone. That it does as agents/gnb_mock/agent.py does is the differential test's part
 * (tests/oai_patches); here stand the cases that must not depend on it. */
#include "messages.h"

static int lines;
static void count_line(void *context, int level, const char *text) {
  (void)context, (void)level;
  for (const char *c = text; *c; c++)
    CHECK(*c >= ' ');
  lines++;
}

static ran_link link_;

static void begin(void) {
  prbandit_ran_Hello cell = prbandit_ran_Hello_init_zero;
  logger log = {count_line, NULL};
  cell.protocol_version = PRBANDIT_PROTOCOL_VERSION;
  strcpy(cell.cell_id, "cell-1");
  cell.prb = 106;
  link_init(&link_, &cell, &log);
  lines = 0;
}

static void give(from_controller m, int64_t now) {
  link_receive(&link_, m.data, m.size, now);
}

static prbandit_ran_GnbMessage sent(int64_t now) {
  const uint8_t *data;
  size_t size = link_to_send(&link_, &data);
  CHECK(size);
  prbandit_ran_GnbMessage m = decoded_gnb(data, size);
  link_sent(&link_, now);
  return m;
}

static bool silent(void) {
  const uint8_t *data;
  return link_to_send(&link_, &data) == 0;
}

static void in_session(void) {
  begin();
  link_tick(&link_, 0);
  CHECK(sent(0).which_body == prbandit_ran_GnbMessage_hello_tag);
  give(welcome(7), 0);
  CHECK(link_.session == 7 && silent());
}

static void test_hello_backs_off(void) {
  begin();
  int64_t said[6];
  int n = 0;
  const uint8_t *data;
  for (int64_t now = 0; now <= 17 * NS_PER_S; now += 10 * NS_PER_MS) {
    link_tick(&link_, now);
    for (; link_to_send(&link_, &data); link_sent(&link_, now))
      said[n++] = now / NS_PER_S;
  }
  CHECK(n == 6 && said[0] == 0 && said[1] == 1 && said[2] == 3 && said[3] == 7 && said[4] == 12 && said[5] == 17);
}

static void test_a_quota_is_acknowledged_when_it_is_in_force(void) {
  in_session();
  give(quota(7, 1, 3000, 30), 0);
  CHECK(silent() && link_.pending.id && link_.pending.what.n_quotas == 1);
  prbandit_ran_SliceUse uses[2] = {{"", prbandit_ran_Direction_UL, 3, 4, 5, 6}, {"ar", prbandit_ran_Direction_UL, 1, 1, 0, 1}};
  link_enforced(&link_, (cell_time){12, 3, 1000}, uses, 2);
  prbandit_ran_Applied a = sent(0).body.applied;
  CHECK(a.session == 7 && a.sequence == 1 && a.frame == 12 && a.slot == 3 && a.time_ns == 1000 && !a.lapsed);
  CHECK(a.in_force_count == 1 && strcmp(a.in_force[0].slice, "ar") == 0 && a.in_force[0].ul_prb == 30);
  CHECK(a.use_count == 2 && strcmp(a.use[0].slice, "ar") == 0 && a.use[1].retx_prb_slots == 5);
  CHECK(!link_.pending.id && silent());
}

static void test_a_lease_ends_whatever_comes_but_a_renewal(void) {
  in_session();
  give(quota(7, 5, 3000, 30), 0);
  link_enforced(&link_, (cell_time){0, 0, 0}, NULL, 0);
  give(quota(7, 5, 3000, 30), 2 * NS_PER_S); /* repeated */
  give(quota(7, 4, 3000, 30), 2 * NS_PER_S); /* old */
  give(quota(8, 6, 3000, 30), 2 * NS_PER_S); /* another session */
  give(quota(7, 6, 0, 30), 2 * NS_PER_S);
  give(quota(7, 6, 3600001, 30), 2 * NS_PER_S);
  give(quota(7, 6, 3000, 107), 2 * NS_PER_S);
  CHECK(link_.counters.repeated_sequence == 1 && link_.counters.old_sequence == 1);
  CHECK(link_.counters.wrong_session == 1 && link_.counters.refused_quotas == 3 && !link_.pending.id);
  link_tick(&link_, 3 * NS_PER_S - 1);
  CHECK(!link_.pending.id);
  link_tick(&link_, 3 * NS_PER_S);
  CHECK(link_.pending.id && link_.pending.lapsed && link_.pending.what.n_quotas == 0);
  CHECK(link_.counters.leases_lapsed == 1);
}

static void test_a_quota_that_does_not_fit_the_carrier_ends_like_a_lapse(void) {
  in_session();
  give(quota(7, 1, 3000, 30), 0);
  uint64_t id = link_.pending.id;
  link_not_enforceable(&link_, "no room");
  CHECK(link_.pending.id != id && link_.pending.lapsed && !link_.lease.held);
  link_enforced(&link_, (cell_time){0, 0, 0}, NULL, 0);
  prbandit_ran_Applied a = sent(0).body.applied;
  CHECK(a.sequence == 1 && a.lapsed && a.in_force_count == 0 && link_.counters.refused_quotas == 1);
}

static void test_acknowledgements_that_cannot_leave_are_bounded(void) {
  in_session();
  for (uint64_t i = 1; i <= 20; i++) {
    give(quota(7, i, 3000, 30), 0);
    link_enforced(&link_, (cell_time){0, 0, 0}, NULL, 0);
  }
  for (uint64_t i = 13; i <= 20; i++)
    CHECK(sent(0).body.applied.sequence == i);
  CHECK(silent() && link_.counters.acks_superseded == 12);
}

static void test_the_largest_acknowledgement_fits_its_buffer(void) {
  in_session();
  prbandit_ran_ControllerMessage m = {.which_body = prbandit_ran_ControllerMessage_set_quota_tag};
  prbandit_ran_SetQuota *q = &m.body.set_quota;
  *q = (prbandit_ran_SetQuota){.session = 7, .sequence = UINT64_MAX, .lease_ms = 3600000, .quotas_count = 16};
  for (int i = 0; i < 16; i++) {
    memset(q->quotas[i].slice, 'a' + i, PRBANDIT_NAME_SIZE - 1);
    q->quotas[i].ul_prb = q->quotas[i].dl_prb = 106;
  }
  give(encoded(&m), 0);
  prbandit_ran_SliceUse uses[40];
  for (int i = 0; i < 40; i++) {
    uses[i] = (prbandit_ran_SliceUse){"", prbandit_ran_Direction_DL, UINT32_MAX, UINT64_MAX, UINT64_MAX, UINT32_MAX};
    memset(uses[i].slice, 'z', PRBANDIT_NAME_SIZE - 1);
  }
  link_enforced(&link_, (cell_time){1023, 159, UINT64_MAX}, uses, 40);
  prbandit_ran_Applied a = sent(0).body.applied;
  CHECK(a.in_force_count == 16 && a.use_count == 32 && link_.counters.uses_left_out == 8);
}

static void test_a_flood_of_nonsense_writes_few_lines(void) {
  in_session();
  lines = 0;
  for (int i = 0; i < 100000; i++)
    link_receive(&link_, (const uint8_t *)"\xff\n\n", 3, 0);
  for (uint64_t i = 1; i <= 10000; i++)
    give(welcome(i + 100), (int64_t)i * NS_PER_MS);
  CHECK(link_.counters.malformed == 100000 && lines <= 17 + 12);
}

static void test_a_peers_text_cannot_forge_a_line(void) {
  in_session();
  prbandit_ran_ControllerMessage m = {.which_body = prbandit_ran_ControllerMessage_reject_tag};
  strcpy(m.body.reject.reason, "no\nprbandit: error: \x1b[2J all is lost");
  give(encoded(&m), 0); /* count_line looks at it */
  CHECK(link_.rejected && link_.session == 0 && lines >= 1);
}

int main(void) {
  test_hello_backs_off();
  test_a_quota_is_acknowledged_when_it_is_in_force();
  test_a_lease_ends_whatever_comes_but_a_renewal();
  test_a_quota_that_does_not_fit_the_carrier_ends_like_a_lapse();
  test_acknowledgements_that_cannot_leave_are_bounded();
  test_the_largest_acknowledgement_fits_its_buffer();
  test_a_flood_of_nonsense_writes_few_lines();
  test_a_peers_text_cannot_forge_a_line();
  return 0;
}
