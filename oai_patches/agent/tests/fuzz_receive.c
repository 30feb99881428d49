/* Fuzz target of the receive path. The input is a story: messages, passing time and NR slots; after each step
 * what must always hold is checked. */
#include "messages.h"
#include "plan.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void quiet(void *context, int level, const char *text) {
  (void)context, (void)level, (void)text;
}

static void schedule(ran_link *link) {
  static const prbandit_cell cell = {106, 5, 30, {5, 1, 10, 2, 3}};
  static const prbandit_config config = {.n_slices = 1, .slices = {{"ar", {1, PRBANDIT_NO_SD}}}};
  static plan p;
  char why[128];
  if (!link->pending.id)
    return;
  while (!plan_build(&p, &link->pending.what, &config, &cell, why, sizeof why))
    link_not_enforceable(link, why);
  for (int d = 0; d < 2 && p.n_ranges; d++) {
    uint32_t next = 0;
    for (uint32_t i = 0; i < p.n_ranges; i++) {
      CHECK(p.ranges[d][i].start == next);
      CHECK(i == p.n_ranges - 1 || !p.ranges[d][i].size || p.ranges[d][i].size >= cell.min_prb);
      next += p.ranges[d][i].size;
    }
    CHECK(next == cell.n_prb);
  }
  for (uint32_t i = 0; i < link->pending.what.n_bindings; i++)
    CHECK(plan_range_of(&p, link->pending.what.bindings[i].ue_id, (prbandit_snssai){0, 0}) < p.n_rows);
  prbandit_ran_SliceUse use = {"ar", prbandit_ran_Direction_UL, 1, 2, 3, 4};
  link_enforced(link, (cell_time){1, 2, 3}, &use, 1);
}

static void drain(ran_link *link, int64_t now) {
  const uint8_t *data;
  size_t size;
  while ((size = link_to_send(link, &data)) != 0) {
    decoded_gnb(data, size);
    link_sent(link, now);
  }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static ran_link link;
  logger log = {quiet, NULL};
  prbandit_ran_Hello cell = {.protocol_version = PRBANDIT_PROTOCOL_VERSION, .cell_id = "cell-1", .prb = 106};
  int64_t now = 0;
  link_init(&link, &cell, &log);
  from_controller first = welcome(7);
  link_receive(&link, first.data, first.size, now);
  while (size >= 3) {
    size_t n = data[1] | (size_t)data[2] << 8;
    uint8_t what = data[0];
    data += 3, size -= 3;
    n = n < size ? n : size;
    now += (what >> 4) * 50 * NS_PER_MS;
    link_tick(&link, now);
    link_receive(&link, data, n, now);
    data += n, size -= n;
    CHECK(!link.lease.held || (link.lease.ends > now && link.lease.ends - now <= MAX_LEASE_MS * NS_PER_MS));
    CHECK(link.pending.what.n_quotas <= PRBANDIT_MAX_SLICES && link.acks.n <= MAX_PENDING_ACKS);
    if (what & 1)
      schedule(&link);
    if (what & 2)
      drain(&link, now);
  }
  link_tick(&link, now + 2 * MAX_LEASE_MS * NS_PER_MS);
  schedule(&link);
  CHECK(link.in_force.n_quotas == 0); /* Whatever was said, it ends. */
  return 0;
}
