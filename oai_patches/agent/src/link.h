/* The agent's side of the RAN link without I/O: bytes and monotonic time in, bytes and enforcement out.
 * agents/gnb_mock/agent.py is the same protocol to read; a differential test holds the two together.
 *
 * The owner passes what arrived to link_receive() and calls link_tick() often; puts `pending` in force, if
 * there is one, and says so with link_enforced(), or with link_not_enforceable() why not; sends what
 * link_to_send() gives for as long as the socket takes it, each confirmed with link_sent(); sends what
 * link_report() gives at once, with link_report_sent(), or drops it; says with link_not_sent() that the socket
 * took a message not; and makes the connection anew where link_reconnect() says so. */
#ifndef PRBANDIT_LINK_H
#define PRBANDIT_LINK_H

#include "log.h"
#include "ran.pb.h"

#define MAX_MESSAGE_SIZE 65536
#define MAX_LEASE_MS 3600000u
#define MAX_PENDING_ACKS 8
#define MAX_USES 32 /* Applied.use */

#define NS_PER_MS INT64_C(1000000)
#define NS_PER_S INT64_C(1000000000)

typedef struct {
  uint32_t n_quotas, n_bindings;
  prbandit_ran_SliceQuota quotas[PRBANDIT_MAX_SLICES];
  prbandit_ran_UeBinding bindings[PRBANDIT_MAX_BINDINGS];
} link_quotas;

/* Put these quotas in force; none means all PRBs for everybody. */
typedef struct {
  uint64_t id; /* another one each time, 0: nothing to do */
  uint64_t session, sequence;
  bool lapsed;
  link_quotas what;
} link_enforce;

/* An NR slot boundary of the cell, with CLOCK_REALTIME. */
typedef struct {
  uint32_t frame, slot;
  uint64_t time_ns;
} cell_time;

typedef struct {
  size_t size;
  uint8_t data[prbandit_ran_GnbMessage_size];
} link_message;

typedef struct {
  size_t size;
  uint8_t data[prbandit_ran_Applied_size + 8];
} link_ack;

typedef struct {
  prbandit_ran_Hello cell;
  logger log;
  prbandit_counters counters;
  uint64_t session; /* 0: none */
  uint32_t report_period_ms;
  bool rejected;
  link_enforce pending;
  link_quotas in_force;
  struct {
    bool held;
    int64_t ends;
    uint64_t session, sequence;
  } lease;
  /* The rest is its own. */
  uint64_t enforce_id, last_sequence, reports;
  int64_t logged_session, logged_lapse;
  bool silent; /* a Hello is not answered or the socket takes nothing, since then */
  int64_t silent_since;
  struct {
    bool waiting;
    int64_t due, wait;
    size_t size;
    uint8_t data[prbandit_ran_Hello_size + 8];
  } hello;
  link_ack last_ack; /* size 0: none */
  struct {
    uint32_t first, n;
    link_ack ring[MAX_PENDING_ACKS];
  } acks;
} ran_link;

void link_init(ran_link *link, const prbandit_ran_Hello *cell, const logger *log);
void link_tick(ran_link *link, int64_t now);
void link_receive(ran_link *link, const uint8_t *data, size_t size, int64_t now);

/* Size of the next message that must not be dropped, 0: none. */
size_t link_to_send(const ran_link *link, const uint8_t **data);
void link_sent(ran_link *link, int64_t now);
void link_report_sent(ran_link *link);
void link_not_sent(ran_link *link, int64_t now);

/* Whether the connection is to be made anew, now: libzmq never retries one whose CURVE handshake was answered by
 * something else, and does not say so. */
bool link_reconnect(ran_link *link, int64_t now);

/* Gives a report its session and sequence and encodes it; 0 without a session. */
size_t link_report(ran_link *link, prbandit_ran_GnbMessage *report, link_message *out);

/* Whether link_enforced() will say what was used. Where it will not, the use is to be kept for the next one. */
bool link_will_acknowledge(const ran_link *link);
void link_enforced(ran_link *link, cell_time at, const prbandit_ran_SliceUse *uses, uint32_t n_uses);
void link_not_enforceable(ran_link *link, const char *why);

#endif
