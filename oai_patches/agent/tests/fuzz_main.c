/* Runs the fuzz target without libFuzzer: fuzz_receive TIMES [SEED FILE]... mutates the seeds so often. */
#include "messages.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_SEEDS = 256, INPUT_SIZE = 1 << 17 };
static struct {
  uint8_t *data;
  size_t size;
} seeds[MAX_SEEDS];
static unsigned n_seeds;

static uint64_t state = 88172645463325252u;
static uint64_t random_below(uint64_t n) { /* xorshift64 */
  state ^= state << 13, state ^= state >> 7, state ^= state << 17;
  return state % n;
}

static void add_seed(const uint8_t *data, size_t size) {
  if (n_seeds == MAX_SEEDS || size > INPUT_SIZE)
    return;
  seeds[n_seeds].data = malloc(size + 1);
  CHECK(seeds[n_seeds].data);
  memcpy(seeds[n_seeds].data, data, size);
  seeds[n_seeds++].size = size;
}

static void add_message(from_controller m) {
  uint8_t input[sizeof m.data + 3] = {0xf3, (uint8_t)m.size, (uint8_t)(m.size >> 8)};
  memcpy(input + 3, m.data, m.size);
  add_seed(input, m.size + 3);
}

int main(int argc, char **argv) {
  static uint8_t input[INPUT_SIZE];
  long times = argc > 1 ? atol(argv[1]) : 10000;
  add_message(welcome(8));
  add_message(quota(7, 1, 3000, 30));
  add_message(quota(7, 2, 100, 106));
  for (int i = 2; i < argc; i++) {
    FILE *file = fopen(argv[i], "rb");
    CHECK(file);
    add_seed(input, fread(input, 1, sizeof input, file));
    fclose(file);
  }
  for (unsigned i = 0; i < n_seeds; i++)
    LLVMFuzzerTestOneInput(seeds[i].data, seeds[i].size);
  for (long t = 0; t < times; t++) {
    size_t size = 0;
    for (uint64_t parts = 1 + random_below(4); parts; parts--) {
      unsigned i = (unsigned)random_below(n_seeds);
      if (size + seeds[i].size > sizeof input)
        break;
      memcpy(input + size, seeds[i].data, seeds[i].size);
      size += seeds[i].size;
    }
    for (uint64_t changes = random_below(8); changes && size; changes--)
      switch (random_below(3)) {
      case 0: input[random_below(size)] = (uint8_t)random_below(256); break;
      case 1: input[random_below(size)] ^= (uint8_t)(1u << random_below(8)); break;
      default: size = random_below(size + 1);
      }
    LLVMFuzzerTestOneInput(input, size);
  }
  printf("%u seeds, %ld mutations\n", n_seeds, times);
  return 0;
}
