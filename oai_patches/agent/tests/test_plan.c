/* From quotas to PRB ranges, and from a UE to its range. */
#include "check.h"
#include "plan.h"

static const prbandit_cell CELL = {106, 5, 30, {5, 1, 10, 2, 3}};
static const prbandit_snssai NONE = {0, PRBANDIT_NO_SD};
static plan p;
static char why[128];

static void add(link_quotas *q, const char *slice, uint32_t ul, uint32_t dl) {
  prbandit_ran_SliceQuota *s = &q->quotas[q->n_quotas++];
  strcpy(s->slice, slice);
  s->ul_prb = ul, s->dl_prb = dl;
}

static void bind(link_quotas *q, const char *ue_id, const char *slice) {
  prbandit_ran_UeBinding *b = &q->bindings[q->n_bindings++];
  strcpy(b->ue_id, ue_id);
  strcpy(b->slice, slice);
}

static bool is(prbandit_range r, uint16_t start, uint16_t size) {
  return r.start == start && r.size == size;
}

static void test_ranges_are_stacked_in_the_order_of_the_quotas(void) {
  link_quotas q = {0};
  prbandit_config c = {0};
  add(&q, "ar", 30, 20);
  add(&q, "video", 40, 86);
  CHECK(plan_build(&p, &q, &c, &CELL, why, sizeof why) && p.n_ranges == 3);
  CHECK(is(p.ranges[PRBANDIT_UL][0], 0, 30) && is(p.ranges[PRBANDIT_UL][1], 30, 40));
  CHECK(is(p.ranges[PRBANDIT_UL][2], 70, 36));
  CHECK(is(p.ranges[PRBANDIT_DL][0], 0, 20) && is(p.ranges[PRBANDIT_DL][1], 20, 86));
  CHECK(is(p.ranges[PRBANDIT_DL][2], 106, 0));
}

static void test_what_no_grant_fits_into_is_left_to_the_others(void) {
  link_quotas q = {0};
  prbandit_config c = {0};
  add(&q, "a", 0, 4);
  add(&q, "b", 5, 1);
  CHECK(plan_build(&p, &q, &c, &CELL, why, sizeof why));
  CHECK(is(p.ranges[PRBANDIT_UL][0], 0, 0) && is(p.ranges[PRBANDIT_UL][1], 0, 5));
  CHECK(is(p.ranges[PRBANDIT_UL][2], 5, 101));
  CHECK(is(p.ranges[PRBANDIT_DL][0], 0, 0) && is(p.ranges[PRBANDIT_DL][1], 0, 0));
  CHECK(is(p.ranges[PRBANDIT_DL][2], 0, 106));
}

static void test_more_than_the_carrier_is_no_plan(void) {
  link_quotas q = {0};
  prbandit_config c = {0};
  add(&q, "a", 53, 53);
  add(&q, "b", 53, 54);
  CHECK(!plan_build(&p, &q, &c, &CELL, why, sizeof why));
  CHECK_TEXT(why, "107 DL PRB in all on a carrier of 106");
  q.quotas[1].dl_prb = 53;
  CHECK(plan_build(&p, &q, &c, &CELL, why, sizeof why));
}

static void test_no_quotas_are_no_ranges(void) {
  link_quotas q = {0};
  prbandit_config c = {0};
  bind(&q, "ue-1", "ar");
  CHECK(plan_build(&p, &q, &c, &CELL, why, sizeof why));
  CHECK(p.n_ranges == 0 && p.n_rows == 1 && plan_range_of(&p, "ue-1", NONE) == 0);
}

static void test_membership(void) {
  link_quotas q = {0};
  prbandit_config c = {.n_slices = 2,
                       .slices = {{"video", {2, 0x123456}}, {"voice", {3, PRBANDIT_NO_SD}}}};
  add(&q, "ar", 30, 20);
  add(&q, "video", 40, 40);
  bind(&q, "ue-1", "ar");
  bind(&q, "ue-2", "");
  bind(&q, "ue-3", "nosuch");
  CHECK(plan_build(&p, &q, &c, &CELL, why, sizeof why));
  CHECK(plan_range_of(&p, "ue-1", NONE) == 0);
  CHECK(plan_range_of(&p, "ue-2", NONE) == 2 && plan_range_of(&p, "ue-3", NONE) == 2);
  CHECK(plan_range_of(&p, "ue-9", NONE) == 2 && plan_range_of(&p, "", NONE) == 2);
  CHECK(plan_range_of(&p, "ue-1 with a name of more than 31 bytes", NONE) == 2);
  /* By S-NSSAI first, even where that slice has no quota; an unknown S-NSSAI says nothing. */
  CHECK(plan_range_of(&p, "ue-1", (prbandit_snssai){2, 0x123456}) == 1);
  CHECK(plan_range_of(&p, "ue-1", (prbandit_snssai){3, PRBANDIT_NO_SD}) == 2);
  CHECK(plan_range_of(&p, "ue-1", (prbandit_snssai){2, 0x123457}) == 0);
  CHECK(plan_range_of(&p, "ue-1", (prbandit_snssai){0, 0x123456}) == 0);
  CHECK(strcmp(slice_name_of(&c, &q, "ue-1", (prbandit_snssai){3, PRBANDIT_NO_SD}), "voice") == 0);
  CHECK(strcmp(slice_name_of(&c, &q, "ue-1", NONE), "ar") == 0);
  CHECK(strcmp(slice_name_of(&c, &q, "ue-9", NONE), "") == 0);
}

static void test_a_full_table_of_bindings_finds_every_ue(void) {
  prbandit_config c = {0};
  for (int round = 0; round < 200; round++) {
    link_quotas q = {0};
    char ue_id[PRBANDIT_NAME_SIZE];
    for (int i = 0; i < PRBANDIT_MAX_SLICES; i++) {
      sprintf(ue_id, "s%d", i);
      add(&q, ue_id, 6, 6);
    }
    for (int i = 0; i < PRBANDIT_MAX_BINDINGS; i++) {
      char slice[8];
      sprintf(ue_id, "imsi-00101%010d", round * 64 + i);
      sprintf(slice, "s%d", (i * 7 + round) % PRBANDIT_MAX_SLICES);
      bind(&q, ue_id, slice);
    }
    CHECK(plan_build(&p, &q, &c, &CELL, why, sizeof why));
    for (int i = 0; i < PRBANDIT_MAX_BINDINGS; i++) {
      sprintf(ue_id, "imsi-00101%010d", round * 64 + i);
      CHECK(plan_range_of(&p, ue_id, NONE) == (uint32_t)((i * 7 + round) % PRBANDIT_MAX_SLICES));
      sprintf(ue_id, "imsi-99999%010d", round * 64 + i);
      CHECK(plan_range_of(&p, ue_id, NONE) == PRBANDIT_MAX_SLICES);
    }
  }
}

int main(void) {
  test_ranges_are_stacked_in_the_order_of_the_quotas();
  test_what_no_grant_fits_into_is_left_to_the_others();
  test_more_than_the_carrier_is_no_plan();
  test_no_quotas_are_no_ranges();
  test_membership();
  test_a_full_table_of_bindings_finds_every_ue();
  return 0;
}
