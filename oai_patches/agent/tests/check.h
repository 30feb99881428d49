/* What a test program needs: CHECK ends it with the place and the condition. */
#ifndef CHECK_H
#define CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                        \
  do {                                                                          \
    if (!(condition)) {                                                         \
      fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, __func__, #condition); \
      exit(1);                                                                  \
    }                                                                           \
  } while (0)

#define CHECK_TEXT(text, part)                                                  \
  do {                                                                          \
    if (!strstr(text, part)) {                                                  \
      fprintf(stderr, "%s:%d: \"%s\" is not in \"%s\"\n", __FILE__, __LINE__, part, text); \
      exit(1);                                                                  \
    }                                                                           \
  } while (0)

#endif
