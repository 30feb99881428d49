/* From the bytes of a ControllerMessage to nanopb's structures.
 *
 * nanopb's own decoder refuses a whole message for a string or list that is longer than its array and for a
 * field of another wire type. The protocol needs more: a SetQuota that is too large is refused by its sequence,
 * a Reject with a long reason is still a Reject. So this reads as proto3 says (unknown fields and other wire
 * types skipped, the last value wins, embedded messages merge), with nanopb's stream functions. */
#ifndef PRBANDIT_DECODE_H
#define PRBANDIT_DECODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ran.pb.h"

typedef struct {
  prbandit_ran_ControllerMessage message; /* which_body 0: no known body */
  bool too_large; /* a name or a list of its SetQuota does not fit and is cut */
} decoded;

/* False where the bytes are no message at all. */
bool decode_controller_message(const uint8_t *data, size_t size, decoded *out);

#endif
