#include "stage.h"

#include <string.h>

typedef struct {
  const stage_gnb *gnb;
  void *context;
  const stage_cell *cell;
  char *array;
  uint32_t n, done;             /* candidates; the first `done` of the array have been in a pass */
  uint16_t *map;
  stage_faults *faults;
  uint32_t at[PASSES_MAX_UES];  /* where in the array each UE's candidate stands now */
  uint8_t who[PASSES_MAX_UES];  /* which UE's candidate stands there */
  stage_candidate seen[PASSES_MAX_UES];
} stage_slot;

void stage_ue_id(uint16_t rnti, char id[PRBANDIT_NAME_SIZE]) {
  static const char digits[] = "0123456789abcdef";
  memcpy(id, "rnti-", 5);
  for (int i = 0; i < 4; i++)
    id[5 + i] = digits[rnti >> (12 - 4 * i) & 15];
  id[9] = '\0';
}

static void swap(void *a, void *b, size_t size) {
  char part[256], *x = a, *y = b;
  while (size > 0) {
    const size_t n = size < sizeof part ? size : sizeof part;
    memcpy(part, x, n);
    memcpy(x, y, n);
    memcpy(y, part, n);
    x += n;
    y += n;
    size -= n;
  }
}

bool stage_silent(uint32_t frame, uint32_t last_ul_frame, uint32_t limit) {
  return ((frame - last_ul_frame) & 1023) >= (limit > 10 ? limit : 10);
}

static void *candidate(const stage_slot *s, uint32_t at) {
  return s->array + at * s->gnb->candidate_size;
}

/* Brings the candidates of a pass to the front of those that have been in none. */
static void gather(stage_slot *s, passes_ue *const *ues, uint32_t n) {
  for (uint32_t i = 0; i < n; i++) {
    const uint32_t to = s->done + i, from = s->at[(uintptr_t)ues[i]->ue];
    if (from == to)
      continue;
    swap(candidate(s, to), candidate(s, from), s->gnb->candidate_size);
    const uint8_t moved = s->who[to];
    s->who[to] = s->who[from];
    s->who[from] = moved;
    s->at[s->who[to]] = to;
    s->at[moved] = from;
  }
}

/* A grant on the gNB's map. One that is not wholly on PRBs that were free for it is a fault of the gNB's stage. */
static void take(stage_slot *s, const passes_ue *ue, prbandit_range prb, prbandit_range window, bool *busy) {
  bool free = prb.start >= window.start && prb.start + prb.size <= window.start + window.size;
  for (uint32_t k = prb.start; k < (uint32_t)prb.start + prb.size && k < s->cell->n_prb; k++) {
    free = free && !busy[k];
    busy[k] = true;
    s->map[k] |= s->seen[(uintptr_t)ue->ue].symbols;
  }
  s->faults->outside += !free;
}

/* The gNB's map with all taken but the free PRBs of the window. Gives how many those are. A PRB that is taken for
 * one candidate is taken for all: another may have fewer symbols. */
static uint32_t free_map(const stage_slot *s, prbandit_range window, const bool *busy, uint16_t *map) {
  uint32_t n = 0;
  memset(map, 0xff, PASSES_MAX_PRB * sizeof *map);
  for (uint32_t prb = window.start; prb < (uint32_t)window.start + window.size; prb++)
    if (!busy[prb]) {
      map[prb] = s->map[prb];
      n++;
    }
  return n;
}

static void one_pass(void *context, passes_ue *const *ues, uint32_t n, prbandit_range window, bool *busy) {
  stage_slot *s = context;
  if (window.size == 0)
    return;
  uint16_t map[PASSES_MAX_PRB];
  const uint32_t n_free = free_map(s, window, busy, map);
  const uint32_t fit = n_free / s->cell->min_prb;
  gather(s, ues, n);
  /* a stage may divide what is free by the grants, and end the gNB where that is less than a smallest grant */
  s->gnb->allocate(s->context, candidate(s, s->done), n, map, n < fit ? n : fit > 0 ? fit : 1,
                   n_free > s->cell->min_prb ? n_free : s->cell->min_prb);
  for (uint32_t i = 0; i < n; i++) {
    const prbandit_range prb = s->gnb->grant(candidate(s, s->done + i));
    if (prb.size == 0)
      continue;
    *(ues[i]->retx_prb > 0 ? &ues[i]->sent_retx_prb : &ues[i]->new_prb) = prb.size;
    take(s, ues[i], prb, window, busy);
  }
  s->done += n;
}

/* Taken PRBs. Symbols that are taken on every PRB of the carrier (CSI-RS, SRS) are no reason: the gNB has a shorter
 * time-domain allocation for such NR slots. */
static void read_busy(const stage_slot *s, uint16_t symbols, bool *busy) {
  uint16_t everywhere = UINT16_MAX;
  for (int prb = 0; prb < s->cell->n_prb; prb++)
    everywhere &= s->map[prb];
  for (int prb = 0; prb < s->cell->n_prb; prb++)
    busy[prb] = (s->map[prb] & symbols & ~everywhere) != 0;
}

/* A stage that gives PRBs twice has used no more than all: the controller refuses a report of more than the carrier. */
static void tell_used(const stage_cell *cell, uint32_t range, uint32_t new_prb, uint32_t retx_prb) {
  prbandit_used(cell->agent, cell->direction, range, new_prb < cell->n_prb ? new_prb : cell->n_prb, retx_prb);
}

static uint32_t unsliced(stage_slot *s, uint32_t max_grants) {
  s->gnb->allocate(s->context, s->array, s->n, s->map, max_grants, 0);
  uint32_t grants = 0, new_prb = 0, retx_prb = 0;
  for (uint32_t i = 0; i < s->n; i++) {
    s->gnb->read(candidate(s, i), &s->seen[0]);
    const uint32_t size = s->gnb->grant(candidate(s, i)).size;
    *(s->seen[0].retx_prb > 0 ? &retx_prb : &new_prb) += size;
    grants += size > 0;
  }
  tell_used(s->cell, 0, new_prb, retx_prb);
  return grants;
}

/* The UEs as passes.h has them. Those that an earlier stage dropped are in no pass. */
static uint32_t plan(stage_slot *s, uint32_t n_ranges, passes_ue *ues, uint16_t *symbols) {
  uint32_t n_ues = 0;
  *symbols = 0;
  for (uint32_t i = 0; i < s->n && i < PASSES_MAX_UES; i++) {
    stage_candidate *seen = &s->seen[i];
    s->gnb->read(candidate(s, i), seen);
    s->at[i] = i;
    s->who[i] = (uint8_t)i;
    if (seen->dropped)
      continue;
    *symbols |= seen->symbols;
    char id[PRBANDIT_NAME_SIZE];
    stage_ue_id(seen->rnti, id);
    const uint32_t range = prbandit_slice_of(s->cell->agent, seen->rnti, id, seen->snssai);
    ues[n_ues++] = (passes_ue){
        .ue = (void *)(uintptr_t)i,
        .range = range < n_ranges ? range : n_ranges - 1,
        .reach = passes_overlap((prbandit_range){0, s->cell->n_prb}, seen->reach),
        .retx_prb = seen->retx_prb,
        .waits = true, /* or it would be no candidate */
        .signals = seen->signals,
    };
  }
  return n_ues;
}

static void tell(const stage_cell *cell, const passes_use *use, uint32_t n_ranges) {
  for (uint32_t i = 0; i < n_ranges; i++) {
    tell_used(cell, i, use[i].new_prb, use[i].retx_prb);
    if (use[i].widened_prb > 0)
      prbandit_widened(cell->agent, cell->direction, i, use[i].widened_prb);
  }
}

uint32_t stage_run(const stage_gnb *gnb, void *context, const stage_cell *cell, void *candidates, uint32_t n,
                   uint16_t *map, uint32_t max_grants, stage_faults *faults) {
  stage_slot s = {.gnb = gnb, .context = context, .cell = cell, .array = candidates, .n = n,
                  .map = map, .faults = faults};
  const prbandit_range *ranges;
  const uint32_t n_ranges = prbandit_ranges(cell->agent, cell->direction, &ranges);
  if (n_ranges == 0 || n_ranges > PASSES_MAX_RANGES)
    return unsliced(&s, max_grants);

  passes_ue ues[PASSES_MAX_UES];
  uint16_t symbols;
  const uint32_t n_ues = plan(&s, n_ranges, ues, &symbols);
  bool busy[PASSES_MAX_PRB];
  read_busy(&s, symbols, busy);
  const passes_slot slot = {.n_prb = cell->n_prb, .min_prb = cell->min_prb, .finds_runs = true,
                            .max_grants = max_grants, .turn = cell->turn, .ranges = ranges, .n_ranges = n_ranges};
  passes_use use[PASSES_MAX_RANGES];
  const uint32_t grants = passes_share(&slot, busy, ues, n_ues, use, one_pass, &s);
  tell(cell, use, n_ranges);
  return grants;
}

void stage_idle(const stage_cell *cell) {
  const prbandit_range *ranges;
  const uint32_t n_ranges = prbandit_ranges(cell->agent, cell->direction, &ranges);
  const passes_use nothing[PASSES_MAX_RANGES] = {{0}};
  tell(cell, nothing, n_ranges == 0 || n_ranges > PASSES_MAX_RANGES ? 1 : n_ranges);
}
