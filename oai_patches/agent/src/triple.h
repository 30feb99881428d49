/* Hands the newest of three buffers from one thread to another. Neither side ever waits: each owns one buffer,
 * and publishing or taking exchanges it for the third. What was not taken in time is replaced. */
#ifndef PRBANDIT_TRIPLE_H
#define PRBANDIT_TRIPLE_H

#include <stdalign.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

enum { TRIPLE_NEW = 4, TRIPLE_INDEX = 3 };

typedef struct {
  alignas(64) _Atomic uint8_t between; /* index, and TRIPLE_NEW where the reader has not taken it */
  alignas(64) uint8_t back;            /* the writer's buffer */
  alignas(64) uint8_t front;           /* the reader's */
} triple;

static inline void triple_init(triple *t) {
  atomic_init(&t->between, 2);
  t->back = 0;
  t->front = 1;
}

/* The writer's buffer is whole. True where the one before was not taken. */
static inline bool triple_publish(triple *t) {
  uint8_t was = atomic_exchange_explicit(&t->between, t->back | TRIPLE_NEW, memory_order_acq_rel);
  t->back = was & TRIPLE_INDEX;
  return was & TRIPLE_NEW;
}

static inline bool triple_is_new(triple *t) {
  return atomic_load_explicit(&t->between, memory_order_relaxed) & TRIPLE_NEW;
}

/* Makes the newest buffer the reader's; false where it has it already. */
static inline bool triple_take(triple *t) {
  if (!triple_is_new(t))
    return false;
  t->front = atomic_exchange_explicit(&t->between, t->front, memory_order_acq_rel) & TRIPLE_INDEX;
  return true;
}

#endif
