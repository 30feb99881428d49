/* A pointer of the scheduler's that is ours, and what may become of it while the gNB runs. */
#include "hooks.h"

#include <dlfcn.h>

#include "check.h"

int gnb_symbol;
static int (*stage)(int);
static hook of_stage;

int policy_of_the_gnb(int n);
int policy_of_the_gnb(int n) {
  return n;
}
int other_policy_of_the_gnb(int n);
int other_policy_of_the_gnb(int n) {
  return 10 * n;
}
static int ours(int n) {
  return 100 + ((int (*)(int))of_stage.original)(n);
}

static void begin(int (*first)(int)) {
  stage = first;
  of_stage = (hook){"stage", (void **)&stage, (void *)ours, NULL};
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  begin(NULL); /* not there yet */
  CHECK(hook_place(&of_stage, &gnb_symbol) == HOOK_IN_PLACE && stage == NULL);

  begin(policy_of_the_gnb);
  CHECK(hook_place(&of_stage, &gnb_symbol) == HOOK_PLACED && stage(1) == 101);
  CHECK(hook_place(&of_stage, &gnb_symbol) == HOOK_IN_PLACE && stage(1) == 101);
  CHECK(strcmp(hook_function_name(of_stage.original), "policy_of_the_gnb") == 0);

  stage = policy_of_the_gnb; /* the gNB sets it once more */
  CHECK(hook_place(&of_stage, &gnb_symbol) == HOOK_PLACED && stage(2) == 102);
  stage = other_policy_of_the_gnb; /* an operator chooses another of the gNB's */
  CHECK(hook_place(&of_stage, &gnb_symbol) == HOOK_PLACED && stage(2) == 120);
  CHECK(strcmp(hook_function_name(of_stage.original), "other_policy_of_the_gnb") == 0);

  void *plug_in = dlopen(argv[1], RTLD_NOW);
  CHECK(plug_in != NULL);
  int (**before)(int) = dlsym(plug_in, "plug_in_before");
  void *policy = dlsym(plug_in, "plug_in_policy");
  CHECK(before != NULL && policy != NULL);
  *before = stage; /* it wraps ours */
  *(void **)&stage = policy;
  for (int looks = 0; looks < 3; looks++)
    CHECK(hook_place(&of_stage, &gnb_symbol) == HOOK_FOREIGN && stage(2) == 1120);

  begin(NULL);
  *(void **)&stage = policy; /* it was there before us: it cannot call ours */
  *before = policy_of_the_gnb;
  CHECK(hook_place(&of_stage, &gnb_symbol) == HOOK_PLACED && stage(3) == 1103);
  CHECK(strcmp(hook_function_name(of_stage.original), "plug_in_policy") == 0);
  *(void **)&stage = policy; /* what ours calls already is no circle */
  CHECK(hook_place(&of_stage, &gnb_symbol) == HOOK_PLACED && stage(3) == 1103);
  return 0;
}
