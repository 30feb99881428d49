/* Two threads for millions of NR slots: no plan, receipt or snapshot is ever seen half made, and no use is lost
 * or counted twice. */
#include <pthread.h>

#include "check.h"
#include "hot.h"

enum { NR_SLOTS = 2000000, PLANS = 1000, UES = 8 };
static const prbandit_snssai NONE = {0, PRBANDIT_NO_SD};
static hot_side hot;
static atomic_bool done;
static uint64_t given[2][2]; /* [direction][new, retx] */
static uint64_t nr_slots, plans_seen;
static uint32_t frame, slot;

static uint32_t fill(void *context, prbandit_ue *ues, uint32_t max) {
  (void)context, (void)max;
  for (uint32_t i = 0; i < UES; i++) {
    ues[i].rnti = (uint16_t)slot;
    ues[i].ul.lc_bytes = ues[i].dl.queued_bytes = (uint64_t)frame << 32 | slot;
  }
  return UES;
}

static void *scheduler(void *argument) {
  (void)argument;
  uint64_t last = 0;
  /* More where the threads had to share a core and hardly met. */
  for (uint32_t n = 0; n < NR_SLOTS || plans_seen < PLANS; n++, nr_slots++) {
    frame = n / 20 % 1024, slot = n % 20;
    hot.report_due = 0; /* one in every NR slot */
    hot_nr_slot(&hot, frame, slot, fill, NULL);
    uint64_t id = hot.plan->id;
    CHECK(id >= last);
    plans_seen += id != last;
    last = id;
    for (prbandit_direction d = PRBANDIT_UL; d <= PRBANDIT_DL; d++) {
      const prbandit_range *r;
      uint32_t ranges = hot_ranges(&hot, d, &r);
      CHECK(ranges == (id ? 2 : 0));
      if (id)
        CHECK(r[0].size == id % 90 + 5 && r[1].start == r[0].size && r[1].size == 106 - r[0].size);
      uint32_t mine = hot_slice_of(&hot, id % 2 ? "odd" : "even", NONE);
      CHECK(mine == 0);
      hot_used(&hot, d, mine, n % 7, n % 3);
      given[d][0] += n % 7;
      given[d][1] += n % 3;
    }
  }
  atomic_store(&done, true);
  return NULL;
}

static uint64_t taken[2][2], receipts, snapshots;

static void read_receipt(uint64_t *planned) {
  const receipt *r = hot_receipt(&hot);
  if (!r)
    return;
  CHECK(r->plan_id <= *planned && r->at.slot < 20 && r->at.frame < 1024 && r->n >= 1);
  for (uint32_t i = 0; i < r->n; i++)
    for (int d = 0; d < 2; d++) {
      taken[d][0] += r->use[i][d].new_prb_slots;
      taken[d][1] += r->use[i][d].retx_prb_slots;
      CHECK(r->use[i][d].max_new_prb <= 6);
    }
  receipts++;
  hot_receipt_read(&hot);
}

int main(void) {
  static const prbandit_cell cell = {106, 5, 30, {5, 1, 10, 2, 3}};
  static const prbandit_config config;
  static link_quotas q = {.n_quotas = 1, .n_bindings = 1};
  char why[64];
  pthread_t thread;
  uint64_t planned = 0;
  hot_init(&hot);
  atomic_store(&hot.report_period_ms, 10);
  CHECK(pthread_create(&thread, NULL, scheduler, NULL) == 0);
  for (bool last = false; !last;) {
    last = atomic_load(&done);
    plan *p = hot_next_plan(&hot);
    planned++;
    sprintf(q.quotas[0].slice, "s%u", (unsigned)(planned % 1000));
    sprintf(q.bindings[0].slice, "s%u", (unsigned)(planned % 1000));
    strcpy(q.bindings[0].ue_id, planned % 2 ? "odd" : "even");
    q.quotas[0].ul_prb = q.quotas[0].dl_prb = (uint32_t)(planned % 90 + 5);
    CHECK(plan_build(p, &q, &config, &cell, why, sizeof why));
    p->id = planned;
    p->expires = INT64_MAX;
    hot_hand_over(&hot);
    read_receipt(&planned);
    const snapshot *s = hot_snapshot(&hot);
    if (!s)
      continue;
    snapshots++;
    CHECK(s->n == UES && s->frame < 1024);
    for (uint32_t i = 0; i < UES; i++)
      CHECK(s->ues[i].rnti == s->slot && s->ues[i].ul.lc_bytes == ((uint64_t)s->frame << 32 | s->slot) &&
            s->ues[i].dl.queued_bytes == s->ues[i].ul.lc_bytes);
  }
  pthread_join(thread, NULL);
  read_receipt(&planned);
  hot_nr_slot(&hot, 0, 0, NULL, NULL); /* takes the last plan, and leaves the rest of the use */
  read_receipt(&planned);
  for (int d = 0; d < 2; d++)
    for (int kind = 0; kind < 2; kind++)
      CHECK(taken[d][kind] == given[d][kind]);
  CHECK(receipts >= PLANS && snapshots > 0 && snapshots + atomic_load(&hot.reports_dropped) >= nr_slots - 1);
  printf("%llu NR slots, %llu plans, %llu receipts, %llu snapshots\n", (unsigned long long)nr_slots,
         (unsigned long long)plans_seen, (unsigned long long)receipts, (unsigned long long)snapshots);
  return 0;
}
