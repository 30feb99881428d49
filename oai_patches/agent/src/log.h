/* One line to whoever started the agent. Never from a hot call. */
#ifndef PRBANDIT_LOG_H
#define PRBANDIT_LOG_H

#include "prbandit_agent.h"

enum { LOG_ERROR = 0, LOG_WARNING = 1, LOG_INFORMATION = 2 };

typedef struct {
  prbandit_log_fn to; /* NULL: standard error */
  void *context;
} logger;

void log_line(const logger *log, int level, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Whether the n-th of a kind is to be logged: every power of two, so that a peer that errs for hours does not
 * fill the disk. */
static inline bool log_due(uint64_t n) {
  return (n & (n - 1)) == 0;
}

#endif
