/* Candidates of 1, 4 or 16 UEs in two slices, all with data, for the trap and the benchmark. */
#ifndef ROUND_H
#define ROUND_H

#include "check.h"
#include "toy_pipeline.h"

enum { ROUND_UES = 16, ROUND_PRB = 106, ROUND_DCIS = 8 };

static toy_candidate round_candidates[ROUND_UES];
static toy_gnb round_gnb;

static const uint16_t round_prb[] = {50, 40};

static void round_begin(uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    toy_candidate *c = &round_candidates[i];
    c->number = i;
    c->rnti = (uint16_t)(0x4601 + i);
    c->sst = 1;
    c->sd = 1 + i % 2;
    c->bwp_size = ROUND_PRB;
    c->symbols = 0x3ffc;
    c->want_prb = 12;
    c->retx_prb = i == 3 ? 6 : 0;
    c->scheduled = false;
  }
}

static uint32_t round_run(uint32_t n, prbandit_direction direction) {
  uint16_t map[PASSES_MAX_PRB] = {0};
  uint32_t outside;
  round_begin(n);
  return toy_run(&round_gnb, direction, ROUND_PRB, 5, round_candidates, n, map, ROUND_DCIS, &outside);
}

#endif
