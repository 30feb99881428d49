/* A function of the scheduler's that the gNB calls by a pointer, and ours that takes its place. Plain C, no type of
 * the gNB's, so that it is tested alone. */
#ifndef PRBANDIT_HOOKS_H
#define PRBANDIT_HOOKS_H

typedef struct {
  const char *name;
  void **at;      /* the gNB's pointer */
  void *ours;
  void *original; /* what was there: ours calls it; written before `ours` is put in place */
} hook;

typedef enum { HOOK_IN_PLACE, HOOK_PLACED, HOOK_FOREIGN } hook_state;

/* Looks at the pointer, and puts ours in place where it is not. What is the gNB's own is hooked: the same as before or
 * another policy, `in_gnb` being any symbol of the gNB's binary. Somebody else's function that came later is left
 * alone: it may call ours, and then to hook it would make a circle.
 *
 * It is one pointer, written at once: the scheduler calls either the old function or the new one. */
hook_state hook_place(hook *of, const void *in_gnb);

/* The name of a function, for the log. */
const char *hook_function_name(const void *function);

#endif
