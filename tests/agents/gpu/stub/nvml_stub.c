// A libnvidia-ml.so.1 without a GPU: the NVML calls that the edge agent makes, answered for one or two
// GTX 1650. All state is in the file that $PRBANDIT_NVML_STUB names, so that processes share a GPU and a lock
// outlives the process that set it, as it does on a real one. The struct is mirrored in __init__.py.
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MAX_GPUS = 2, MAGIC = 0x4e564d4c };

enum {  // nvmlReturn_t
  SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6,
  INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9, GPU_IS_LOST = 15, RESET_REQUIRED = 16, VERSION_MISMATCH = 18,
  UNKNOWN = 999
};

enum { HANG_INIT = 1, HANG_COUNT = 2, HANG_SHUTDOWN = 4 };  // bits of `hangs'

enum {  // bits of `unsupported`
  NO_SM_CLOCK = 1, NO_MEMORY_CLOCK = 2, NO_POWER = 4, NO_ENERGY = 8, NO_UTILISATION = 16, NO_TEMPERATURE = 32,
  NO_REASONS = 64, NO_CLOCK_LIST = 128, NO_LOCK = 256
};

struct gpu {
  // knobs
  uint32_t error;                // what every call about this GPU returns; 0: none
  uint32_t no_permission;        // clocks may not be changed
  uint32_t unsupported;
  uint32_t lag_ms;               // from a request to the clock
  uint32_t stuck;                // the clock no longer follows a request
  uint32_t ceiling_mhz;          // thermal slowdown; 0: none
  uint32_t load_percent;
  uint32_t applications_memory_mhz;  // 0: not supported, as on GeForce
  uint32_t idle_mw, uw_per_mhz;  // power = idle_mw + uw_per_mhz * clock * load
  // state
  uint32_t locked_mhz;           // 0: not locked
  uint32_t locks, resets;
  uint32_t from_mhz, to_mhz;
  uint32_t hang;                 // a knob: while it is 1 no call about this GPU returns, while it is 2 no release of its clocks
  int32_t offset_mhz;            // a knob: a locked GPU takes a clock so far from the one that was locked
  uint32_t unknown;              // a knob: the fields (bits of `unsupported`) that fail with an unknown error
  uint32_t vain;                 // a knob: this clock is taken, whatever is locked; 0: none
  uint32_t idle_drops;           // a knob: without load a locked GPU takes its idle clock all the same
  uint32_t more_reasons;         // a knob: clock event reasons beside those that follow from the rest
  uint64_t change_ns;            // monotonic time at which to_mhz is taken
  uint64_t at_ns;                // energy is integrated up to here
  double energy_mj;
};

struct stub {
  uint32_t magic, gpus, init_error, inits;
  uint32_t hangs;                // a knob: which calls about no GPU do not return
  struct gpu gpu[MAX_GPUS];
};

typedef struct handle { int index; } *nvmlDevice_t;

static struct handle handles[MAX_GPUS] = {{0}, {1}};
static int lost[MAX_GPUS];  // a lost GPU stays lost for this process until NVML is opened anew
static struct stub *shared;
static int file = -1, references;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static uint64_t now_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void leave(void) {
  if (file >= 0) flock(file, LOCK_UN);
  pthread_mutex_unlock(&mutex);
}

static uint32_t natural_mhz(const struct gpu *g) {
  if (g->locked_mhz && g->vain) return g->vain;
  if (g->locked_mhz && !(g->idle_drops && !g->load_percent)) return g->locked_mhz + (uint32_t)g->offset_mhz;
  return g->load_percent ? 1905 : 300;
}

static uint32_t clock_at(const struct gpu *g, uint64_t ns) {
  uint32_t mhz = ns < g->change_ns ? g->from_mhz : g->to_mhz;
  return g->ceiling_mhz && mhz > g->ceiling_mhz ? g->ceiling_mhz : mhz;
}

static double power_mw(const struct gpu *g, uint32_t mhz) {
  return g->idle_mw + g->uw_per_mhz / 1e3 * mhz * g->load_percent / 100.0;
}

static void advance(struct gpu *g, uint64_t ns) {
  if (g->at_ns && ns > g->at_ns) {
    uint64_t middle = g->change_ns > g->at_ns && g->change_ns < ns ? g->change_ns : ns;
    g->energy_mj += power_mw(g, clock_at(g, g->at_ns)) * (double)(middle - g->at_ns) / 1e9;
    g->energy_mj += power_mw(g, clock_at(g, middle)) * (double)(ns - middle) / 1e9;
  }
  g->at_ns = ns;
  uint32_t target = natural_mhz(g);
  if (!g->stuck && g->to_mhz != target) {
    g->from_mhz = g->to_mhz ? clock_at(g, ns) : target;
    g->to_mhz = target;
    g->change_ns = ns + (uint64_t)g->lag_ms * 1000000u;
  }
}

// Takes the mutex, and before that the time for which a GPU hangs: calls about the other go on.
static void begin(nvmlDevice_t handle, uint32_t hang) {
  pthread_mutex_lock(&mutex);
  while (references && (handle == &handles[0] || handle == &handles[1]) && shared->gpu[handle->index].hang == hang) {
    pthread_mutex_unlock(&mutex);
    usleep(1000);
    pthread_mutex_lock(&mutex);
  }
}

static void hang(uint32_t call) {
  while (shared && __atomic_load_n(&shared->hangs, __ATOMIC_RELAXED) & call) usleep(1000);
}

// Enters with both locks held and the GPU brought up to date, or returns an error with none held.
static int enter(nvmlDevice_t handle, struct gpu **out) {
  begin(handle, 1);
  if (!references) { pthread_mutex_unlock(&mutex); return UNINITIALIZED; }
  flock(file, LOCK_EX);
  int code = SUCCESS;
  if (!handle || (handle != &handles[0] && handle != &handles[1]) || handle->index >= (int)shared->gpus) {
    code = INVALID_ARGUMENT;
  } else {
    struct gpu *g = &shared->gpu[handle->index];
    if (g->error == GPU_IS_LOST || g->error == RESET_REQUIRED) lost[handle->index] = 1;
    code = g->error ? (int)g->error : lost[handle->index] ? GPU_IS_LOST : SUCCESS;
    if (!code) { advance(g, now_ns()); *out = g; }
  }
  if (code) leave();
  return code;
}

static int number(nvmlDevice_t handle, uint32_t bit, unsigned *out, unsigned (*value)(struct gpu *)) {
  struct gpu *g;
  int code = enter(handle, &g);
  if (code) return code;
  if (g->unknown & bit) code = UNKNOWN;
  else if (g->unsupported & bit) code = NOT_SUPPORTED;
  else *out = value(g);
  leave();
  return code;
}

int nvmlInitWithFlags(unsigned flags) {
  (void)flags;
  pthread_mutex_lock(&mutex);
  int code = SUCCESS;
  if (!references) {
    const char *path = getenv("PRBANDIT_NVML_STUB");
    struct stat info;
    if (file >= 0) close(file);
    if (shared) munmap(shared, sizeof *shared);
    shared = NULL;
    file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0 || fstat(file, &info) || info.st_size < (off_t)sizeof *shared) {
      code = DRIVER_NOT_LOADED;
    } else {
      shared = mmap(NULL, sizeof *shared, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
      if (shared == MAP_FAILED) shared = NULL;
      code = !shared || shared->magic != MAGIC ? DRIVER_NOT_LOADED : SUCCESS;
    }
  }
  if (!code) {
    pthread_mutex_unlock(&mutex);
    hang(HANG_INIT);
    pthread_mutex_lock(&mutex);
    if (!references) code = (int)shared->init_error;
  }
  if (!code) {
    if (!references) memset(lost, 0, sizeof lost);
    references++;
    __atomic_add_fetch(&shared->inits, 1, __ATOMIC_RELAXED);
  }
  pthread_mutex_unlock(&mutex);
  return code;
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

int nvmlShutdown(void) {
  hang(HANG_SHUTDOWN);
  pthread_mutex_lock(&mutex);
  int code = references ? SUCCESS : UNINITIALIZED;
  if (references) references--;
  pthread_mutex_unlock(&mutex);
  return code;
}

const char *nvmlErrorString(int code) {
  switch (code) {
    case SUCCESS: return "Success";
    case UNINITIALIZED: return "Uninitialized";
    case INVALID_ARGUMENT: return "Invalid Argument";
    case NOT_SUPPORTED: return "Not Supported";
    case NO_PERMISSION: return "Insufficient Permissions";
    case NOT_FOUND: return "Not Found";
    case INSUFFICIENT_SIZE: return "Insufficient Size";
    case DRIVER_NOT_LOADED: return "Driver Not Loaded";
    case GPU_IS_LOST: return "GPU is lost";
    case RESET_REQUIRED: return "GPU requires reset";
    case VERSION_MISMATCH: return "Driver/library version mismatch";
    default: return "Unknown Error";
  }
}

int nvmlSystemGetDriverVersion(char *text, unsigned length) {
  if (!references) return UNINITIALIZED;
  return snprintf(text, length, "stub") < (int)length ? SUCCESS : INSUFFICIENT_SIZE;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
  if (!references) return UNINITIALIZED;
  hang(HANG_COUNT);
  *count = shared->gpus;
  return SUCCESS;
}

static int identify(int index, char *text, unsigned length, const char *format) {
  return snprintf(text, length, format, index) < (int)length ? SUCCESS : INSUFFICIENT_SIZE;
}

static const char UUID[] = "GPU-00000000-0000-1650-0000-00000000000%d";

int nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *out) {
  struct gpu *g;
  if (!references) return UNINITIALIZED;
  if (index >= shared->gpus || index >= MAX_GPUS) return INVALID_ARGUMENT;
  int code = enter(&handles[index], &g);
  if (code) return code;
  leave();
  *out = &handles[index];
  return SUCCESS;
}

int nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *out) {
  char known[80];
  if (!references) return UNINITIALIZED;
  for (unsigned i = 0; i < shared->gpus && i < MAX_GPUS; i++) {
    identify((int)i, known, sizeof known, UUID);
    if (!strcmp(known, uuid)) return nvmlDeviceGetHandleByIndex_v2(i, out);
  }
  return NOT_FOUND;
}

int nvmlDeviceGetUUID(nvmlDevice_t handle, char *text, unsigned length) {
  struct gpu *g;
  int code = enter(handle, &g);
  if (code) return code;
  leave();
  return identify(handle->index, text, length, UUID);
}

int nvmlDeviceGetName(nvmlDevice_t handle, char *text, unsigned length) {
  struct gpu *g;
  int code = enter(handle, &g);
  if (code) return code;
  leave();
  return identify(handle->index, text, length, "NVIDIA GeForce GTX 1650");
}

static unsigned sm_mhz(struct gpu *g) { return clock_at(g, now_ns()); }
static unsigned memory_mhz(struct gpu *g) { return g->locked_mhz || g->load_percent ? 4001 : 405; }
static unsigned power(struct gpu *g) { return (unsigned)power_mw(g, clock_at(g, now_ns())); }
static unsigned temperature(struct gpu *g) { return 30 + power(g) / 2000; }

int nvmlDeviceGetClockInfo(nvmlDevice_t handle, int type, unsigned *mhz) {
  if (type == 2) return number(handle, NO_MEMORY_CLOCK, mhz, memory_mhz);
  if (type == 0 || type == 1) return number(handle, NO_SM_CLOCK, mhz, sm_mhz);
  return NOT_SUPPORTED;
}

static unsigned highest(struct gpu *g) { (void)g; return 2100; }

int nvmlDeviceGetMaxClockInfo(nvmlDevice_t handle, int type, unsigned *mhz) {
  return type == 1 ? number(handle, NO_SM_CLOCK, mhz, highest) : NOT_SUPPORTED;
}

int nvmlDeviceGetPowerUsage(nvmlDevice_t handle, unsigned *mw) { return number(handle, NO_POWER, mw, power); }

int nvmlDeviceGetTemperature(nvmlDevice_t handle, int sensor, unsigned *celsius) {
  return sensor ? INVALID_ARGUMENT : number(handle, NO_TEMPERATURE, celsius, temperature);
}

int nvmlDeviceGetUtilizationRates(nvmlDevice_t handle, unsigned rates[2]) {
  struct gpu *g;
  int code = enter(handle, &g);
  if (code) return code;
  if (g->unsupported & NO_UTILISATION) code = NOT_SUPPORTED;
  else { rates[0] = g->load_percent; rates[1] = g->load_percent / 2; }
  leave();
  return code;
}

int nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t handle, unsigned long long *mj) {
  struct gpu *g;
  int code = enter(handle, &g);
  if (code) return code;
  if (g->unsupported & NO_ENERGY) code = NOT_SUPPORTED;
  else *mj = (unsigned long long)g->energy_mj;
  leave();
  return code;
}

int nvmlDeviceGetCurrentClocksEventReasons(nvmlDevice_t handle, unsigned long long *reasons) {
  struct gpu *g;
  int code = enter(handle, &g);
  if (code) return code;
  if (g->unsupported & NO_REASONS) code = NOT_SUPPORTED;
  else {
    *reasons = g->more_reasons | (g->load_percent ? 0 : 0x1) | (g->locked_mhz ? 0x2 : 0);
    if (g->ceiling_mhz && g->to_mhz > g->ceiling_mhz) *reasons |= 0x20;
  }
  leave();
  return code;
}

static int list(unsigned *count, unsigned *out, const unsigned *values, unsigned n) {
  if (*count < n || !out) { *count = n; return INSUFFICIENT_SIZE; }
  memcpy(out, values, n * sizeof *values);
  *count = n;
  return SUCCESS;
}

int nvmlDeviceGetSupportedMemoryClocks(nvmlDevice_t handle, unsigned *count, unsigned *out) {
  static const unsigned clocks[] = {4001, 810, 405};
  struct gpu *g;
  int code = enter(handle, &g);
  if (code) return code;
  code = g->unsupported & NO_CLOCK_LIST ? NOT_SUPPORTED : list(count, out, clocks, 3);
  leave();
  return code;
}

int nvmlDeviceGetSupportedGraphicsClocks(nvmlDevice_t handle, unsigned memory, unsigned *count, unsigned *out) {
  unsigned clocks[121], n = 0;
  struct gpu *g;
  int code = enter(handle, &g);
  if (code) return code;
  for (unsigned mhz = memory == 405 ? 645 : 2100; mhz >= 300; mhz -= 15) clocks[n++] = mhz;
  if (g->unsupported & NO_CLOCK_LIST) code = NOT_SUPPORTED;
  else if (memory != 4001 && memory != 810 && memory != 405) code = NOT_FOUND;
  else code = list(count, out, clocks, n);
  leave();
  return code;
}

int nvmlDeviceGetApplicationsClock(nvmlDevice_t handle, int type, unsigned *mhz) {
  struct gpu *g;
  int code = enter(handle, &g);
  if (code) return code;
  if (type != 2 || !g->applications_memory_mhz) code = NOT_SUPPORTED;
  else *mhz = g->applications_memory_mhz;
  leave();
  return code;
}

static int set_lock(nvmlDevice_t handle, uint32_t mhz) {
  struct gpu *g;
  if (!mhz) { begin(handle, 2); pthread_mutex_unlock(&mutex); }
  int code = enter(handle, &g);
  if (code) return code;
  if (g->unsupported & NO_LOCK) code = NOT_SUPPORTED;
  else if (g->no_permission) code = NO_PERMISSION;
  else {
    g->locked_mhz = mhz;
    if (mhz) g->locks++; else g->resets++;
    advance(g, now_ns());
  }
  leave();
  return code;
}

// A wish between two supported clocks gets the one below: who rounds up has to do it before.
int nvmlDeviceSetGpuLockedClocks(nvmlDevice_t handle, unsigned least, unsigned most) {
  if (least > most || !most) return INVALID_ARGUMENT;
  uint32_t mhz = most < 300 ? 300 : most > 2100 ? 2100 : most - most % 15;
  return set_lock(handle, mhz);
}

int nvmlDeviceResetGpuLockedClocks(nvmlDevice_t handle) { return set_lock(handle, 0); }
