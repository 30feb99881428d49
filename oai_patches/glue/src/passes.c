#include "passes.h"

#include <stdlib.h>

prbandit_range passes_overlap(prbandit_range a, prbandit_range b) {
  const uint32_t start = a.start > b.start ? a.start : b.start;
  const uint32_t end_a = (uint32_t)a.start + a.size, end_b = (uint32_t)b.start + b.size;
  const uint32_t end = end_a < end_b ? end_a : end_b;
  return (prbandit_range){(uint16_t)start, (uint16_t)(end > start ? end - start : 0)};
}

prbandit_range passes_longest_run(const bool *busy, prbandit_range within) {
  prbandit_range best = {within.start, 0};
  uint16_t size = 0;
  for (uint32_t prb = within.start; prb < (uint32_t)within.start + within.size; prb++) {
    size = busy[prb] ? 0 : size + 1;
    if (size > best.size)
      best = (prbandit_range){(uint16_t)(prb + 1 - size), size};
  }
  return best;
}

prbandit_range passes_place(const bool *busy, prbandit_range reach, prbandit_range range, uint16_t size) {
  prbandit_range best = {reach.start, 0};
  uint32_t best_inside = 0, best_distance = 0, run = 0;
  for (uint32_t prb = reach.start; prb < (uint32_t)reach.start + reach.size; prb++) {
    run = busy[prb] ? 0 : run + 1;
    if (size == 0 || run < size)
      continue;
    const prbandit_range place = {(uint16_t)(prb + 1 - size), size};
    const uint32_t inside = passes_overlap(place, range).size;
    const uint32_t distance = (uint32_t)abs(place.start - range.start);
    if (best.size == 0 || inside > best_inside || (inside == best_inside && distance < best_distance)) {
      best = place;
      best_inside = inside;
      best_distance = distance;
    }
  }
  return best;
}

typedef struct {
  const passes_slot *slot;
  bool *busy;
  passes_use *use;
  passes_run_fn run;
  void *context;
  uint32_t turn;
  uint32_t grants;
} sharing;

static void run_pass(sharing *s, passes_ue *const *ues, uint32_t n, prbandit_range window) {
  s->run(s->context, ues, n, window, s->busy);
  for (uint32_t i = 0; i < n; i++) {
    passes_ue *ue = ues[i];
    ue->served = true;
    s->grants += ue->new_prb + ue->sent_retx_prb > 0;
    s->use[ue->range].new_prb += ue->new_prb;
    s->use[ue->range].retx_prb += ue->sent_retx_prb;
  }
}

static uint32_t grants_left(const sharing *s) {
  return s->slot->max_grants > s->grants ? s->slot->max_grants - s->grants : 0;
}

/* Who of `n` comes first. After some rounds of all of them it is one further: a count alone would keep step with the
 * TDD period, and the same one would always be first in the mixed slots. Not after every round, as it is then twice
 * in a row that one comes last. */
static uint32_t first_of(const sharing *s, uint32_t n) {
  const uint32_t rounds = 8;
  return (s->turn + s->turn / (rounds * n)) % n;
}

static void retransmissions(sharing *s, passes_ue *ues, uint32_t n_ues) {
  for (uint32_t k = 0; k < n_ues && grants_left(s) > 0; k++) {
    passes_ue *ue = &ues[(first_of(s, n_ues) + k) % n_ues];
    if (ue->retx_prb == 0)
      continue;
    const prbandit_range range = s->slot->ranges[ue->range];
    const prbandit_range window = passes_place(s->busy, ue->reach, range, ue->retx_prb);
    if (window.size == 0)
      continue;
    run_pass(s, &ue, 1, window);
    const prbandit_range sent = {window.start, ue->sent_retx_prb};
    s->use[ue->range].widened_prb += sent.size - passes_overlap(sent, range).size;
  }
}

static bool starts_too_high(const passes_slot *slot, uint32_t start, uint32_t end) {
  return slot->top_is_lost && start > 0 && start + slot->min_prb >= end;
}

/* Where the smallest grant still fits at the very top of the carrier. */
static prbandit_range smallest_grant(const sharing *s, prbandit_range reach) {
  const uint16_t top = s->slot->top_is_lost && reach.size > 0 ? 1 : 0;
  const prbandit_range room = {reach.start, (uint16_t)(reach.size - top)};
  const prbandit_range high = {(uint16_t)(room.start + room.size), 0};
  return passes_place(s->busy, room, high, s->slot->min_prb);
}

static bool fits_smallest_grant(const sharing *s, prbandit_range within, prbandit_range reach) {
  const prbandit_range run = passes_longest_run(s->busy, passes_overlap(within, reach));
  return run.size >= s->slot->min_prb && !starts_too_high(s->slot, run.start, (uint32_t)reach.start + reach.size);
}

static bool has_waiting(const passes_ue *ues, uint32_t n_ues, uint32_t first, uint32_t end) {
  for (uint32_t i = 0; i < n_ues; i++)
    if (ues[i].range >= first && ues[i].range < end && !ues[i].served && ues[i].retx_prb == 0 && ues[i].waits)
      return true;
  return false;
}

/* There is a DCI for the UEs without a slice; where it is the only one, they take turns with the slices. */
static bool has_a_dci_kept(const sharing *s) {
  return s->slot->max_grants > 1 || first_of(s, s->slot->n_ranges) == s->slot->n_ranges - 1;
}

static void rescue(sharing *s, passes_ue *ues, uint32_t n_ues) {
  bool done[PASSES_MAX_RANGES] = {false};
  /* while the slices are idle, what is left is more than a smallest grant */
  done[s->slot->n_ranges - 1] = !has_a_dci_kept(s) || !has_waiting(ues, n_ues, 0, s->slot->n_ranges - 1);
  for (uint32_t k = 0; k < n_ues && grants_left(s) > 0; k++) {
    passes_ue *ue = &ues[(first_of(s, n_ues) + k) % n_ues];
    const bool last = ue->range + 1 == s->slot->n_ranges;
    if (ue->served || ue->retx_prb > 0 || done[ue->range] || !(last ? ue->waits : ue->signals))
      continue;
    if (ue->reach.size < s->slot->min_prb || fits_smallest_grant(s, s->slot->ranges[ue->range], ue->reach))
      continue;
    const prbandit_range window = smallest_grant(s, ue->reach);
    if (window.size == 0)
      continue;
    done[ue->range] = true;
    run_pass(s, &ue, 1, window);
  }
}

/* The UEs of a range that are still to be served, at most `most`, those who wait first. Their order changes once
 * every slice has come first, or it would keep step with the order of the slices. */
static uint32_t members(const sharing *s, passes_ue *ues, uint32_t n_ues, uint32_t range, uint32_t most,
                        passes_ue **out) {
  const uint32_t first = s->turn / s->slot->n_ranges;
  uint32_t n = 0;
  for (int idle = 0; idle < 2; idle++)
    for (uint32_t k = 0; k < n_ues && n < most; k++) {
      passes_ue *ue = &ues[(first + k) % n_ues];
      if (ue->waits != idle && ue->range == range && !ue->served && ue->retx_prb == 0)
        out[n++] = ue;
    }
  return n;
}

static void range_pass(sharing *s, passes_ue *ues, uint32_t n_ues, uint32_t range, uint32_t most,
                       prbandit_range within) {
  prbandit_range window = passes_longest_run(s->busy, within);
  if (window.size < s->slot->min_prb)
    window.size = 0;
  else if (starts_too_high(s->slot, window.start, s->slot->n_prb) && !s->busy[window.start - 1])
    window.start--;
  const uint32_t fit = window.size / s->slot->min_prb;
  if (s->slot->blind_pregrant && fit > 0 && fit < most)
    most = fit;
  passes_ue *chosen[PASSES_MAX_UES];
  const uint32_t n = members(s, ues, n_ues, range, most, chosen);
  if (n > 0)
    run_pass(s, chosen, n, s->slot->finds_runs && n > 1 && window.size > 0 ? within : window);
}

uint32_t passes_share(const passes_slot *slot, bool *busy, passes_ue *ues, uint32_t n_ues, passes_use *use,
                      passes_run_fn run, void *context) {
  sharing s = {slot, busy, use, run, context, (*slot->turn)++, 0};
  for (uint32_t i = 0; i < slot->n_ranges; i++)
    use[i] = (passes_use){0, 0, 0};
  for (uint32_t i = 0; i < n_ues; i++) {
    ues[i].served = false;
    ues[i].new_prb = ues[i].sent_retx_prb = 0;
  }

  retransmissions(&s, ues, n_ues);
  rescue(&s, ues, n_ues);

  const uint32_t n_slices = slot->n_ranges - 1;
  const bool kept = has_a_dci_kept(&s) && has_waiting(ues, n_ues, n_slices, slot->n_ranges);
  for (uint32_t k = 0; k < n_slices; k++) {
    const uint32_t range = (first_of(&s, n_slices) + k) % n_slices;
    const uint32_t left = grants_left(&s);
    if (left > kept)
      range_pass(&s, ues, n_ues, range, left - kept, slot->ranges[range]);
  }
  if (grants_left(&s) > 0)
    range_pass(&s, ues, n_ues, n_slices, grants_left(&s), (prbandit_range){0, slot->n_prb});
  return s.grants;
}
