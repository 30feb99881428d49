#include "log.h"

#include <stdarg.h>
#include <stdio.h>

void log_line(const logger *log, int level, const char *format, ...) {
  char line[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(line, sizeof line, format, arguments);
  va_end(arguments);
  /* A peer's text may be in it: it must not forge another line. */
  for (char *c = line; *c; c++)
    if ((unsigned char)*c < ' ' || *c == 0x7f)
      *c = '?';
  static const char *const names[] = {"error", "warning", "info"};
  if (log->to)
    log->to(log->context, level, line);
  else
    fprintf(stderr, "prbandit: %s: %s\n", names[level], line);
}
