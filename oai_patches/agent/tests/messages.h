/* Messages of a controller, for tests. */
#ifndef MESSAGES_H
#define MESSAGES_H

#include <pb_decode.h>
#include <pb_encode.h>

#include "check.h"
#include "link.h"

typedef struct {
  size_t size;
  uint8_t data[prbandit_ran_ControllerMessage_size];
} from_controller;

static inline from_controller encoded(const prbandit_ran_ControllerMessage *m) {
  from_controller e;
  pb_ostream_t out = pb_ostream_from_buffer(e.data, sizeof e.data);
  CHECK(pb_encode(&out, prbandit_ran_ControllerMessage_fields, m));
  e.size = out.bytes_written;
  return e;
}

static inline from_controller welcome(uint64_t session) {
  prbandit_ran_ControllerMessage m = {.which_body = prbandit_ran_ControllerMessage_welcome_tag};
  m.body.welcome = (prbandit_ran_Welcome){session, PRBANDIT_PROTOCOL_VERSION, 10, 3000};
  return encoded(&m);
}

/* One slice "ar" with one UE "ue-1", as many PRBs in each direction. */
static inline from_controller quota(uint64_t session, uint64_t sequence, uint32_t lease_ms, uint32_t prb) {
  prbandit_ran_ControllerMessage m = {.which_body = prbandit_ran_ControllerMessage_set_quota_tag};
  prbandit_ran_SetQuota *q = &m.body.set_quota;
  q->session = session;
  q->sequence = sequence;
  q->lease_ms = lease_ms;
  q->quotas_count = q->bindings_count = 1;
  q->quotas[0] = (prbandit_ran_SliceQuota){"ar", prb, prb};
  q->bindings[0] = (prbandit_ran_UeBinding){"ue-1", "ar"};
  return encoded(&m);
}

static inline prbandit_ran_GnbMessage decoded_gnb(const uint8_t *data, size_t size) {
  prbandit_ran_GnbMessage m = prbandit_ran_GnbMessage_init_zero;
  pb_istream_t in = pb_istream_from_buffer(data, size);
  CHECK(pb_decode(&in, prbandit_ran_GnbMessage_fields, &m));
  return m;
}

#endif
