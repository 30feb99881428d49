#define _GNU_SOURCE
#include "hooks.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stddef.h>

static bool in_same_file(const void *a, const void *b) {
  Dl_info of_a, of_b;
  return dladdr(a, &of_a) != 0 && dladdr(b, &of_b) != 0 && of_a.dli_fbase == of_b.dli_fbase;
}

const char *hook_function_name(const void *function) {
  Dl_info of;
  if (dladdr(function, &of) == 0)
    return "a function without a name";
  return of.dli_sname != NULL ? of.dli_sname : of.dli_fname;
}

hook_state hook_place(hook *of, const void *in_gnb) {
  void *now = __atomic_load_n(of->at, __ATOMIC_ACQUIRE);
  if (now == NULL || now == of->ours)
    return HOOK_IN_PLACE;
  if (of->original != NULL && now != of->original && !in_same_file(now, in_gnb))
    return HOOK_FOREIGN;
  __atomic_store_n(&of->original, now, __ATOMIC_RELEASE);
  __atomic_store_n(of->at, of->ours, __ATOMIC_RELEASE);
  return HOOK_PLACED;
}
