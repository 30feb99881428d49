/* Where a UE's bytes wait, of what a scheduler has noted of its logical channels. Knows nothing of OAI. */
#ifndef PRBANDIT_CHANNELS_H
#define PRBANDIT_CHANNELS_H

#include "prbandit_agent.h"

#define CHANNELS_MOST 32 /* that a UE has: maxLC-ID of TS 38.331 */

/* The one choice of channels whose bytes add up to `total`, as bits; 0 where there is none, or more than one. */
static inline uint32_t channels_that_wait(const prbandit_channel *from, uint32_t n, uint64_t total) {
  uint64_t all = 0;
  uint32_t found = 0;
  for (uint32_t i = 0; i < n; i++)
    all += from[i].queued_bytes;
  if (all == total)
    return (uint32_t)((UINT64_C(1) << n) - 1);
  if (all < total || n > PRBANDIT_MAX_CHANNELS)
    return 0;
  for (uint32_t choice = 1; choice < UINT32_C(1) << n; choice++) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < n; i++)
      sum += choice >> i & 1 ? from[i].queued_bytes : 0;
    if (sum == total && found)
      return 0;
    if (sum == total)
      found = choice;
  }
  return found;
}

/* Fills in a UE's channels: of the `n` ones with bytes in `from` those that really wait, of more than
 * PRBANDIT_MAX_CHANNELS the fullest, in their order. OAI writes what waits in all (`total`) anew each time, but
 * not always that one of the queues has become empty: a channel that does not fit the sum is left out, and
 * where that does not tell which, none is told. */
static inline void channels_fill(prbandit_ue *to, const prbandit_channel *from, uint32_t n, uint64_t total) {
  uint32_t waits = total == 0 || n == 0 ? 0 : channels_that_wait(from, n, total);
  to->n_channels = 0;
  for (uint32_t i = 0; i < n; i++) {
    if (!(waits >> i & 1))
      continue;
    if (to->n_channels == PRBANDIT_MAX_CHANNELS) {
      uint32_t least = 0;
      for (uint32_t k = 1; k < PRBANDIT_MAX_CHANNELS; k++)
        if (to->channels[k].queued_bytes < to->channels[least].queued_bytes)
          least = k;
      if (from[i].queued_bytes <= to->channels[least].queued_bytes)
        continue;
      for (uint32_t k = least; k + 1 < PRBANDIT_MAX_CHANNELS; k++)
        to->channels[k] = to->channels[k + 1];
      to->n_channels--;
    }
    to->channels[to->n_channels++] = from[i];
  }
}

#endif
