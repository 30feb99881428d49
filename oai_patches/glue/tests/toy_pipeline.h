/* A made-up gNB whose MAC is a pipeline, as narrow as stage.h needs it, on the agent's real plan and hot calls: so
 * the stage runs in tests without OAI. Its allocation stage does what the default one of OAI does: retransmissions on
 * as many PRBs as before, then a smallest grant for who has no data, then data on the longest free run. */
#ifndef TOY_PIPELINE_H
#define TOY_PIPELINE_H

#include "hot.h"
#include "stage.h"

/* What an allocation stage may do wrong. */
typedef enum {
  TOY_KEEPS_TO_THE_MAP,
  TOY_IGNORES_THE_MAP,    /* data starts at PRB 0, free or not */
  TOY_TAKES_TOO_MUCH,     /* data goes on for 10 PRBs after the free run */
  TOY_GRANTS_TOO_OFTEN,   /* does not look at the number of DCIs */
} toy_fault;

typedef struct {
  uint32_t number;       /* of the candidate, whatever its place in the array */
  uint16_t rnti, bwp_start, bwp_size, symbols, retx_prb, want_prb;
  uint8_t sst;
  uint32_t sd;
  bool skipped, signals, scheduled;
  uint16_t start, size;  /* within the bandwidth part */
  uint32_t calls;        /* how often it was handed to the allocation stage */
  uint8_t rest[700];     /* OAI's candidates are as large */
} toy_candidate;

typedef struct {
  toy_fault fault;
  uint32_t calls, most_candidates;
  uint32_t n_free, max_grants;
  uint16_t *map; /* of the last call */
} toy_gnb;

extern hot_side toy_hot;

/* A plan with quotas, each with its S-NSSAI (1, k + 1); `n` 0: none. By bindings, the UE `bound[k]` is in slice
 * `slice_of[k]`. */
void toy_hand_over(const uint16_t *ul_prb, const uint16_t *dl_prb, uint32_t n, const uint16_t *bound,
                   const uint32_t *slice_of, uint32_t n_bound, int64_t lease_ns);

/* The same, in force from here on. */
void toy_quotas(const uint16_t *ul_prb, const uint16_t *dl_prb, uint32_t n, const uint16_t *bound,
                const uint32_t *slice_of, uint32_t n_bound);

/* One NR slot of `direction` on a carrier of n_prb. */
uint32_t toy_run(toy_gnb *gnb, prbandit_direction direction, uint16_t n_prb, uint16_t min_prb, toy_candidate *candidates,
                 uint32_t n, uint16_t *map, uint32_t max_grants, uint32_t *outside);

/* One in which the gNB has nothing to allocate. */
void toy_idle(prbandit_direction direction);

/* What the range used since this was asked last; the range `n_quotas` is that of the UEs without a slice. */
void toy_use(uint32_t range, prbandit_direction direction, use_sum *use);

/* PRBs of retransmissions beside their range, since the beginning. */
uint64_t toy_widened(void);

#endif
