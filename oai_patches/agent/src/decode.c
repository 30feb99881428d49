#include "decode.h"

#include "prbandit_agent.h"

#include <pb_decode.h>
#include <string.h>

enum { WIRE_GROUP_START = 3, WIRE_GROUP_END = 4, MAX_DEPTH = 100 };

/* Cases of a switch over key(): a field of another wire type than its own is as good as unknown. */
#define VARINT(tag) ((uint64_t)(tag) << 3 | PB_WT_VARINT)
#define BYTES(tag) ((uint64_t)(tag) << 3 | PB_WT_STRING)

typedef struct {
  uint64_t key;
  uint64_t value;     /* of a varint */
  pb_istream_t bytes; /* of a string or an embedded message */
  bool bad;
} field;

static bool skip_group(pb_istream_t *in, uint32_t group, int depth);

static bool read_value(pb_istream_t *in, uint32_t tag, uint32_t type, field *f, int depth) {
  switch (type) {
  case PB_WT_VARINT:
    return pb_decode_varint(in, &f->value);
  case PB_WT_64BIT:
    return pb_read(in, NULL, 8);
  case PB_WT_32BIT:
    return pb_read(in, NULL, 4);
  case PB_WT_STRING: {
    if (!pb_make_string_substream(in, &f->bytes))
      return false;
    pb_istream_t rest = f->bytes;
    return pb_close_string_substream(in, &rest);
  }
  case WIRE_GROUP_START:
    return skip_group(in, tag, depth);
  default:
    return false;
  }
}

static bool skip_group(pb_istream_t *in, uint32_t group, int depth) {
  pb_wire_type_t type;
  uint32_t tag;
  bool end;
  field f;
  while (depth < MAX_DEPTH && pb_decode_tag(in, &type, &tag, &end) && tag) {
    if ((uint32_t)type == WIRE_GROUP_END)
      return tag == group;
    if (!read_value(in, tag, type, &f, depth + 1))
      return false;
  }
  return false;
}

/* The next field; false at the end, and at what is not protobuf (f->bad). */
static bool next_field(pb_istream_t *in, field *f) {
  pb_wire_type_t type;
  uint32_t tag;
  bool end;
  if (!pb_decode_tag(in, &type, &tag, &end)) {
    f->bad = !end;
    return false;
  }
  f->key = (uint64_t)tag << 3 | (uint32_t)type;
  f->bad = tag == 0 || !read_value(in, tag, type, f, 0);
  return !f->bad;
}

/* Copies a string of UTF-8 (RFC 3629), cut to size - 1 bytes. False where it is not UTF-8. */
static bool read_string(pb_istream_t bytes, char *to, size_t size, bool *cut) {
  size_t n = bytes.bytes_left, more = 0;
  uint8_t c, low = 0x80, high = 0xbf;
  memset(to, 0, size);
  for (size_t i = 0; i < n; i++) {
    if (!pb_read(&bytes, &c, 1))
      return false;
    if (more) {
      if (c < low || c > high)
        return false;
      low = 0x80, high = 0xbf;
      more--;
    } else if (c >= 0x80) {
      if (c < 0xc2 || c > 0xf4)
        return false;
      more = c < 0xe0 ? 1 : c < 0xf0 ? 2 : 3;
      low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80;
      high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
    } else if (c == 0) {
      /* Text in C ends here: as two names they would be one. */
      *cut = true;
    }
    if (i < size - 1)
      to[i] = (char)c;
  }
  *cut |= n > size - 1;
  return more == 0;
}

static bool read_welcome(pb_istream_t in, prbandit_ran_Welcome *m) {
  field f;
  while (next_field(&in, &f))
    switch (f.key) {
    case VARINT(prbandit_ran_Welcome_session_tag): m->session = f.value; break;
    case VARINT(prbandit_ran_Welcome_protocol_version_tag): m->protocol_version = (uint32_t)f.value; break;
    case VARINT(prbandit_ran_Welcome_report_period_ms_tag): m->report_period_ms = (uint32_t)f.value; break;
    case VARINT(prbandit_ran_Welcome_lease_ms_tag): m->lease_ms = (uint32_t)f.value; break;
    }
  return !f.bad;
}

static bool read_reject(pb_istream_t in, prbandit_ran_Reject *m) {
  field f;
  bool cut = false;
  while (next_field(&in, &f))
    switch (f.key) {
    case BYTES(prbandit_ran_Reject_reason_tag):
      if (!read_string(f.bytes, m->reason, sizeof m->reason, &cut))
        return false;
      break;
    case VARINT(prbandit_ran_Reject_controller_version_tag): m->controller_version = (uint32_t)f.value; break;
    case VARINT(prbandit_ran_Reject_agent_version_tag): m->agent_version = (uint32_t)f.value; break;
    }
  return !f.bad;
}

static bool read_hello_request(pb_istream_t in, prbandit_ran_HelloRequest *m) {
  field f;
  bool cut = false;
  while (next_field(&in, &f))
    if (f.key == BYTES(prbandit_ran_HelloRequest_reason_tag) &&
        !read_string(f.bytes, m->reason, sizeof m->reason, &cut))
      return false;
  return !f.bad;
}

static bool read_slice_quota(pb_istream_t in, prbandit_ran_SliceQuota *m, bool *too_large) {
  field f;
  bool cut = false;
  while (next_field(&in, &f))
    switch (f.key) {
    case BYTES(prbandit_ran_SliceQuota_slice_tag):
      cut = false;
      if (!read_string(f.bytes, m->slice, sizeof m->slice, &cut))
        return false;
      break;
    case VARINT(prbandit_ran_SliceQuota_ul_prb_tag): m->ul_prb = (uint32_t)f.value; break;
    case VARINT(prbandit_ran_SliceQuota_dl_prb_tag): m->dl_prb = (uint32_t)f.value; break;
    }
  *too_large |= cut;
  return !f.bad;
}

static bool read_binding(pb_istream_t in, prbandit_ran_UeBinding *m, bool *too_large) {
  field f;
  bool cut_ue = false, cut_slice = false;
  while (next_field(&in, &f)) {
    bool *cut = NULL;
    char *to = NULL;
    if (f.key == BYTES(prbandit_ran_UeBinding_ue_id_tag))
      to = m->ue_id, cut = &cut_ue;
    else if (f.key == BYTES(prbandit_ran_UeBinding_slice_tag))
      to = m->slice, cut = &cut_slice;
    else
      continue;
    *cut = false;
    if (!read_string(f.bytes, to, PRBANDIT_NAME_SIZE, cut))
      return false;
  }
  *too_large |= cut_ue || cut_slice;
  return !f.bad;
}

static bool read_set_quota(pb_istream_t in, prbandit_ran_SetQuota *m, bool *too_large) {
  field f;
  while (next_field(&in, &f))
    switch (f.key) {
    case VARINT(prbandit_ran_SetQuota_session_tag): m->session = f.value; break;
    case VARINT(prbandit_ran_SetQuota_sequence_tag): m->sequence = f.value; break;
    case VARINT(prbandit_ran_SetQuota_lease_ms_tag): m->lease_ms = (uint32_t)f.value; break;
    case BYTES(prbandit_ran_SetQuota_quotas_tag): {
      prbandit_ran_SliceQuota q = prbandit_ran_SliceQuota_init_zero;
      if (!read_slice_quota(f.bytes, &q, too_large))
        return false;
      if (m->quotas_count < pb_arraysize(prbandit_ran_SetQuota, quotas))
        m->quotas[m->quotas_count++] = q;
      else
        *too_large = true;
      break;
    }
    case BYTES(prbandit_ran_SetQuota_bindings_tag): {
      prbandit_ran_UeBinding b = prbandit_ran_UeBinding_init_zero;
      if (!read_binding(f.bytes, &b, too_large))
        return false;
      if (m->bindings_count < pb_arraysize(prbandit_ran_SetQuota, bindings))
        m->bindings[m->bindings_count++] = b;
      else
        *too_large = true;
      break;
    }
    }
  return !f.bad;
}

static bool read_release(pb_istream_t in, prbandit_ran_Release *m) {
  field f;
  while (next_field(&in, &f))
    switch (f.key) {
    case VARINT(prbandit_ran_Release_session_tag): m->session = f.value; break;
    case VARINT(prbandit_ran_Release_sequence_tag): m->sequence = f.value; break;
    }
  return !f.bad;
}

bool decode_controller_message(const uint8_t *data, size_t size, decoded *out) {
  prbandit_ran_ControllerMessage *m = &out->message;
  pb_istream_t in = pb_istream_from_buffer(data, size);
  field f;
  memset(out, 0, sizeof *out);
  while (next_field(&in, &f)) {
    uint32_t tag = (uint32_t)(f.key >> 3);
    if (f.key != BYTES(tag) || tag < prbandit_ran_ControllerMessage_welcome_tag ||
        tag > prbandit_ran_ControllerMessage_release_tag)
      continue;
    if (m->which_body != tag) {
      memset(out, 0, sizeof *out);
      m->which_body = (pb_size_t)tag;
    }
    bool whole = false;
    switch (tag) {
    case prbandit_ran_ControllerMessage_welcome_tag: whole = read_welcome(f.bytes, &m->body.welcome); break;
    case prbandit_ran_ControllerMessage_reject_tag: whole = read_reject(f.bytes, &m->body.reject); break;
    case prbandit_ran_ControllerMessage_hello_request_tag:
      whole = read_hello_request(f.bytes, &m->body.hello_request);
      break;
    case prbandit_ran_ControllerMessage_set_quota_tag:
      whole = read_set_quota(f.bytes, &m->body.set_quota, &out->too_large);
      break;
    case prbandit_ran_ControllerMessage_release_tag: whole = read_release(f.bytes, &m->body.release); break;
    }
    if (!whole)
      return false;
  }
  return !f.bad;
}
