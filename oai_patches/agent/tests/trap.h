/* Shows that calls neither allocate nor enter the kernel. They run in a thread in which every system call raises
 * SIGSYS (a seccomp filter) and every allocation is noticed. With the argument `malloc` or `syscall` that thread
 * does one on purpose, to show that the trap works. Exit status 77: there is no seccomp here, or the clock is no
 * vDSO clock. */
#ifndef TRAP_H
#define TRAP_H

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "hot.h"

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *old, size_t size);
void __libc_free(void *old);

static _Thread_local volatile bool armed;
static atomic_int trapped; /* 0, a number of a system call + 1, or -1: allocation */
static atomic_bool finished, unavailable;

/* The thread cannot end itself without a system call: it waits for the program to end. */
static void stay(void) {
  for (;;)
    __asm__ volatile("" ::: "memory");
}

static void caught(int what) {
  armed = false;
  atomic_store(&trapped, what);
  stay();
}

void *malloc(size_t size) {
  if (armed)
    caught(-1);
  return __libc_malloc(size);
}
void *calloc(size_t n, size_t size) {
  if (armed)
    caught(-1);
  return __libc_calloc(n, size);
}
void *realloc(void *old, size_t size) {
  if (armed)
    caught(-1);
  return __libc_realloc(old, size);
}
void free(void *old) {
  if (armed && old)
    caught(-1);
  __libc_free(old);
}

static void on_sigsys(int signal_number, siginfo_t *info, void *unused) {
  (void)signal_number, (void)unused;
  caught(info->si_syscall + 1);
}

static bool trap_system_calls(void) {
  struct sock_filter trap_all = {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_TRAP};
  struct sock_fprog program = {1, &trap_all};
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

/* The program that includes this has the scheduler's side, its calls in NR slot `n`, in the trapped thread, and what
 * the agent's thread hands over meanwhile. */
static void one_nr_slot(uint32_t n);
static void hand_over_some(uint64_t id, int64_t lease_ns);

static const char *provoke = "";
static void *volatile leaked;

static void *scheduler(void *unused) {
  (void)unused;
  one_nr_slot(0);
  if (!trap_system_calls()) {
    atomic_store(&unavailable, true);
    return NULL;
  }
  armed = true;
  for (uint32_t n = 1; n < 20000; n++)
    one_nr_slot(n);
  if (strcmp(provoke, "malloc") == 0)
    leaked = malloc(10);
  if (strcmp(provoke, "syscall") == 0)
    getppid();
  atomic_store(&finished, true);
  stay();
  return NULL;
}

int main(int argc, char **argv) {
  struct sigaction action = {.sa_flags = SA_SIGINFO};
  pthread_t thread;
  provoke = argc > 1 ? argv[1] : "";
  action.sa_sigaction = on_sigsys;
  sigaction(SIGSYS, &action, NULL);
  hot_init(&hot);
  atomic_store(&hot.report_period_ms, 10);
  CHECK(pthread_create(&thread, NULL, scheduler, NULL) == 0);
  /* Plans and receipts go to and fro meanwhile, with and without a live lease. */
  for (uint64_t id = 1; !atomic_load(&finished); id++) {
    if (atomic_load(&unavailable))
      return 77;
    if (atomic_load(&trapped) < 0 || atomic_load(&trapped) == SYS_getppid + 1) {
      printf("trapped: %s\n", atomic_load(&trapped) < 0 ? "an allocation" : "getppid");
      return 1;
    }
    if (atomic_load(&trapped)) {
      printf("system call %d in a hot call\n", atomic_load(&trapped) - 1);
      if (atomic_load(&trapped) == SYS_clock_gettime + 1)
        return 77; /* A clock source without vDSO: nothing that the agent could do. */
      return 1;
    }
    hand_over_some(id, id % 3 ? NS_PER_S : -1);
    if (hot_receipt(&hot))
      hot_receipt_read(&hot);
    hot_snapshot(&hot);
    usleep(100);
  }
  printf("19999 NR slots without an allocation or a system call\n");
  return 0;
}

#endif
