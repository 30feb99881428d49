/* PRBandit's RAN agent: what a gNB calls.
 *
 * The agent tells the controller the MAC state over the RAN link (wire/ran.proto) and hands the scheduler the
 * PRB ranges of the slices. It knows nothing of the gNB's own types.
 *
 * Two threads. The scheduler's thread makes the calls marked "hot": they read atomics and write preallocated
 * memory; they take no lock, allocate nothing, make no system call and log nothing. All hot calls come from
 * one thread at a time. The agent's own thread does everything else.
 *
 * Failing safe: without a live lease there are no ranges, prbandit_ranges() gives 0, and the gNB schedules as
 * if the agent were not there.
 */
#ifndef PRBANDIT_AGENT_H
#define PRBANDIT_AGENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define PRBANDIT_API __attribute__((visibility("default")))
#else
#define PRBANDIT_API
#endif

#define PRBANDIT_AGENT_VERSION "0.1.0"
#define PRBANDIT_PROTOCOL_VERSION 1
#define PRBANDIT_MAX_UES 64      /* MacReport.ues in wire/ran.options */
#define PRBANDIT_MAX_SLICES 16   /* SetQuota.quotas */
#define PRBANDIT_MAX_BINDINGS 64 /* SetQuota.bindings */
#define PRBANDIT_MAX_CHANNELS 8  /* UeState.dl_channels */
#define PRBANDIT_NAME_SIZE 32    /* names with their terminating zero */
#define PRBANDIT_CELL_ID_SIZE 64

typedef struct prbandit_agent prbandit_agent;

typedef enum { PRBANDIT_UL = 0, PRBANDIT_DL = 1 } prbandit_direction;

/* TS 23.003 28.4.2; sd is PRBANDIT_NO_SD where there is none. sst 0 is no S-NSSAI at all. */
#define PRBANDIT_NO_SD 0xffffffu
typedef struct {
  uint8_t sst;
  uint32_t sd;
} prbandit_snssai;

/* ---- configuration and start ---------------------------------------------------------------------------- */

/* A slice by its S-NSSAI. */
typedef struct {
  char slice[PRBANDIT_NAME_SIZE];
  prbandit_snssai snssai;
} prbandit_slice_name;

typedef struct {
  char endpoint[128]; /* of the controller, tcp://HOST:PORT */
  char cell_id[PRBANDIT_CELL_ID_SIZE];
  /* CURVE keys in Z85, all three or none; none is for loopback alone. */
  char curve_server_public[41], curve_public[41], curve_secret[41];
  uint32_t n_slices;
  prbandit_slice_name slices[PRBANDIT_MAX_SLICES];
} prbandit_config;

/* TDD-UL-DL-Pattern of TS 38.331: first the DL slots, one mixed slot (if it has symbols), last the UL slots. */
typedef struct {
  uint8_t period_slots, dl_slots, dl_symbols, ul_symbols, ul_slots;
} prbandit_tdd;

typedef struct {
  uint16_t n_prb;   /* of the carrier */
  uint16_t min_prb; /* smallest grant of the scheduler, 5 in OAI */
  uint16_t scs_khz;
  prbandit_tdd tdd;
} prbandit_cell;

/* Where messages for the gNB's log go; level 0 error, 1 warning, 2 information. Called from the agent's thread
 * and from the calls that are not hot. NULL: standard error. */
typedef void (*prbandit_log_fn)(void *context, int level, const char *text);

/* Reads a configuration file. 0, or -1 with the reason, which names the file, the line and the key. */
PRBANDIT_API int prbandit_config_read(const char *path, prbandit_config *config, char *error, size_t error_size);

/* Starts the agent's thread. NULL with the reason in `error` for a configuration or cell that cannot be. */
PRBANDIT_API prbandit_agent *prbandit_start(const prbandit_config *config, const prbandit_cell *cell, prbandit_log_fn log,
                               void *log_context, char *error, size_t error_size);

/* Ends the agent's thread and frees the agent. No hot call may run or come after. NULL is allowed. */
PRBANDIT_API void prbandit_stop(prbandit_agent *agent);

/* ---- hot: once each NR slot, before the schedulers ------------------------------------------------------- */

typedef struct {
  uint8_t mcs;           /* of the present new transmissions */
  uint8_t mcs_table;     /* 1..3: TS 38.214 Tables 5.1.3.1-1..3 */
  uint8_t layers;
  float bler;            /* of first transmissions, 0..1 */
  uint64_t queued_bytes; /* DL: RLC queues; UL: buffer estimate less what is granted */
  uint64_t lc_bytes;     /* logical-channel bytes since the UE attached */
  uint64_t prb_slots;    /* PRBs times NR slots since the UE attached, retransmissions included */
} prbandit_direction_state;

/* A logical channel with bytes that wait. */
typedef struct {
  uint8_t lcid; /* TS 38.331 LogicalChannelIdentity, 1..32; 1 to 3 are SRBs */
  uint32_t queued_bytes;
} prbandit_channel;

typedef struct {
  uint16_t rnti;
  char ue_id[PRBANDIT_NAME_SIZE]; /* unique in the cell, what bindings name */
  prbandit_snssai snssai;         /* of its DRB, where the gNB has it */
  prbandit_direction_state ul, dl;
  uint8_t cqi;                    /* wide-band, 0: none reported */
  uint8_t five_qi;                /* of a QoS flow of its DRB, TS 23.501 5.7.2.1; 0: none, or not known */
  uint8_t priority_level;         /* of that QoS flow, TS 23.501 5.7.3.3, 1..127, 1 goes first; 0: not known */
  uint8_t n_channels;
  float snr_db; /* PUSCH */
  prbandit_channel channels[PRBANDIT_MAX_CHANNELS]; /* DL, each LCID once; where there are more, the fullest */
} prbandit_ue;

/* Fills up to `max` UEs, every field of each, and gives how many the cell has; those beyond `max` are left out
 * and counted. Called from within prbandit_nr_slot() where a report is due. */
typedef uint32_t (*prbandit_snapshot_fn)(void *context, prbandit_ue *ues, uint32_t max);

/* A new NR slot. Takes what the agent's thread has prepared since (quotas, bindings, lapses), so that ranges
 * and members hold still until the next one. `frame` 0..1023, `slot` within the frame. */
PRBANDIT_API void prbandit_nr_slot(prbandit_agent *agent, uint32_t frame, uint32_t slot, prbandit_snapshot_fn snapshot,
                      void *context);

/* ---- hot: in the scheduler of a direction ---------------------------------------------------------------- */

/* PRBs start .. start + size - 1 of the carrier. */
typedef struct {
  uint16_t start, size;
} prbandit_range;

/* The slices' ranges in this NR slot: 0 where no quota is in force, else one for each slice with a quota, in
 * a fixed order, disjoint, and a last one for every UE without such a slice: what the quotas leave of the
 * carrier, which may be of size 0. Valid until the next prbandit_nr_slot(). */
PRBANDIT_API uint32_t prbandit_ranges(const prbandit_agent *agent, prbandit_direction direction,
                         const prbandit_range **ranges);

/* Index of a UE's range. By S-NSSAI where the configuration names a slice for it, else by the binding of its
 * UE id, else the last range. The result is valid until the next prbandit_nr_slot(). */
PRBANDIT_API uint32_t prbandit_slice_of(const prbandit_agent *agent, uint16_t rnti, const char *ue_id,
                           prbandit_snssai snssai);

/* What the UEs of a range really got in this NR slot, once for each range and direction that could carry the
 * direction, after its allocation. New transmissions and HARQ retransmissions apart. Without ranges, index 0
 * stands for all UEs. */
PRBANDIT_API void prbandit_used(prbandit_agent *agent, prbandit_direction direction, uint32_t range, uint32_t new_prb,
                   uint32_t retx_prb);

/* A retransmission of a range's UE went outside the range by so many PRBs, because it did not fit. */
PRBANDIT_API void prbandit_widened(prbandit_agent *agent, prbandit_direction direction, uint32_t range, uint32_t prb);

/* ---- counters, for the log and for tests ----------------------------------------------------------------- */

typedef struct {
  uint64_t sessions, hellos, rejects, hello_requests, reconnects, quotas, releases, leases_lapsed;
  uint64_t reports_sent, reports_dropped, acks_superseded;
  uint64_t malformed, wrong_session, old_sequence, repeated_sequence, refused_quotas, refused_welcomes;
  uint64_t widened, ues_left_out, uses_left_out;
} prbandit_counters;

/* Any thread. */
PRBANDIT_API void prbandit_read_counters(const prbandit_agent *agent, prbandit_counters *counters);

#ifdef __cplusplus
}
#endif
#endif
