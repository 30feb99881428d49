/* The configuration file: what it takes, and that each error names file, line and key. */
#include <unistd.h>
#include <zmq.h>

#include "check.h"
#include "config.h"

static char folder[] = "/tmp/prbandit-config-XXXXXX";
static char path[128];

static void write_file(const char *name, const char *text) {
  snprintf(path, sizeof path, "%s/%s", folder, name);
  FILE *file = fopen(path, "w");
  CHECK(file && fputs(text, file) >= 0 && fclose(file) == 0);
}

static void refused(const char *text, const char *why) {
  prbandit_config config;
  char error[512] = "";
  memset(&config, 0x5a, sizeof config);
  write_file("agent.conf", text);
  CHECK(prbandit_config_read(path, &config, error, sizeof error) == -1);
  CHECK_TEXT(error, "agent.conf:");
  CHECK_TEXT(error, why);
  CHECK(config.endpoint[0] == 0x5a); /* What the caller had is untouched. */
}

static prbandit_config taken(const char *text) {
  prbandit_config config;
  char error[512] = "";
  write_file("agent.conf", text);
  if (prbandit_config_read(path, &config, error, sizeof error) != 0) {
    fprintf(stderr, "%s\n", error);
    exit(1);
  }
  return config;
}

#define BASE "endpoint = tcp://127.0.0.1:5555\ncell = cell-1\n"

static void test_a_whole_file(void) {
  prbandit_config c = taken("# the controller\n\n  endpoint = tcp://localhost:5555   # on this host\r\n"
                            "cell=cell-1\nslice.ar = 1\nslice.video = 2-00fFa0\n");
  CHECK(strcmp(c.endpoint, "tcp://localhost:5555") == 0 && strcmp(c.cell_id, "cell-1") == 0);
  CHECK(!c.curve_secret[0] && !c.curve_public[0] && !c.curve_server_public[0]);
  CHECK(c.n_slices == 2 && strcmp(c.slices[0].slice, "ar") == 0 && strcmp(c.slices[1].slice, "video") == 0);
  CHECK(c.slices[0].snssai.sst == 1 && c.slices[0].snssai.sd == PRBANDIT_NO_SD);
  CHECK(c.slices[1].snssai.sst == 2 && c.slices[1].snssai.sd == 0x00ffa0);
  taken("cell = a\nendpoint = tcp://[::1]:1"); /* no newline at the end */
}

static void test_errors_name_the_line_and_the_key(void) {
  refused("endpoint = tcp://127.0.0.1:5555\n", "cell: is missing");
  refused("cell = cell-1\n", "endpoint: is missing");
  refused(BASE "cel = x\n", ":3: cel: unknown key");
  refused(BASE "cell = cell-2\n", ":3: cell: is there twice");
  refused(BASE "\n\nendpoint = tcp://127.0.0.1:1\n", ":5: endpoint: is there twice");
  refused("endpoint = 127.0.0.1:5555\n", ":1: endpoint: 127.0.0.1:5555 is not tcp://HOST:PORT");
  for (int i = 0; i < 5; i++) {
    static const char *const ports[] = {"", ":", ":0", ":65536", ":12x"};
    char text[64];
    snprintf(text, sizeof text, "endpoint = tcp://127.0.0.1%s\n", ports[i]);
    refused(text, "is not tcp://HOST:PORT");
  }
  refused("cell = a b\n", ":1: cell: a b is no cell id");
  refused(BASE "cell\n", ":3: cell: is not KEY = VALUE");
  refused(BASE "slice.ar =\n", ":3: slice.ar: has no value");
  refused(BASE "= 3\n", ":3: : a value without a key");
  refused(BASE "slice.ar = 0\n", ":3: slice.ar: 0 is not SST");
  refused(BASE "slice.ar = 256\n", "is not SST");
  refused(BASE "slice.ar = 1-12345\n", "is not SST");
  refused(BASE "slice.ar = 1-1234567\n", "is not SST");
  refused(BASE "slice.ar = 1-00000g\n", "is not SST");
  refused(BASE "slice.ar = 1\nslice.ar = 2\n", ":4: slice.ar: is there twice");
  refused(BASE "slice.ar = 1\nslice.b = 1\n", ":4: slice.b: 1 is the S-NSSAI of slice.ar");
  refused(BASE "slice. = 1\n", ":3: slice.: the name is not of 1..31");
  refused(BASE "slice.aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa = 1\n", "the name is not of 1..31");
  char text[4096] = BASE;
  for (int i = 1; i <= 17; i++)
    sprintf(text + strlen(text), "slice.s%d = %d\n", i, i);
  refused(text, ":19: slice.s17: more than 16 slices");
  memset(text, 'x', 2000);
  text[2000] = '\0';
  refused(text, ":1: longer than");
  prbandit_config config;
  char error[512];
  CHECK(prbandit_config_read("/nonexistent/agent.conf", &config, error, sizeof error) == -1);
  CHECK_TEXT(error, "/nonexistent/agent.conf: No such file");
  CHECK(prbandit_config_read("/tmp", &config, error, sizeof error) == -1);
  CHECK_TEXT(error, "/tmp: ");
}

static void test_keys(void) {
  char public[41], secret[41], server[41], other[41], text[256];
  CHECK(zmq_curve_keypair(public, secret) == 0 && zmq_curve_keypair(server, other) == 0);
  snprintf(text, sizeof text, "%s\n", secret);
  write_file("cell-1.key", text);
  snprintf(text, sizeof text, "%s\n", server);
  write_file("controller.pub", text);
  write_file("bad.key", "not a key\n");
#define BEYOND "cell = cell-1\nendpoint = tcp://192.0.2.1:5555\n"
  prbandit_config c = taken(BEYOND "curve.server = controller.pub\ncurve.secret = cell-1.key\n");
  CHECK(strcmp(c.curve_server_public, server) == 0);
  CHECK(strcmp(c.curve_public, public) == 0 && strcmp(c.curve_secret, secret) == 0);
  snprintf(text, sizeof text, BASE "curve.server = %s/controller.pub\ncurve.secret = %s/cell-1.key\n", folder,
           folder);
  c = taken(text);
  CHECK(strcmp(c.curve_secret, secret) == 0);
  refused(BEYOND, ":2: endpoint: tcp://192.0.2.1:5555 is not a loopback address and curve.server is not set");
  refused(BASE "curve.secret = cell-1.key\n", "curve.server: is missing");
  refused(BASE "curve.server = controller.pub\n", "curve.secret: is missing");
  refused(BASE "curve.server = bad.key\n", ":3: curve.server: key file ");
  refused(BASE "curve.server = bad.key\n", "bad.key is not a CURVE key");
  refused(BASE "curve.server = none.pub\n", "none.pub: No such file");
}

static void test_loopback(void) {
  static const char *const inside[] = {"tcp://127.0.0.1:1",   "tcp://127.8.9.1:1",          "tcp://localhost:1",
                                       "tcp://LOCALHOST:1",   "tcp://[::1]:1",              "tcp://[::ffff:127.0.0.1]:1",
                                       "tcp://0.0.0.0:1;127.0.0.1:2"};
  static const char *const outside[] = {"tcp://0.0.0.0:1",      "tcp://*:1",         "tcp://192.168.1.1:1",
                                        "tcp://[::]:1",         "tcp://example:1",   "tcp://127.0.0.1.example:1",
                                        "tcp://127.0.0.1:1;192.168.1.1:2", "tcp://[::ffff:10.0.0.1]:1",
                                        "tcp://localhost",      "udp://127.0.0.1:1", ""};
  for (size_t i = 0; i < sizeof inside / sizeof *inside; i++)
    CHECK(is_loopback(inside[i]));
  for (size_t i = 0; i < sizeof outside / sizeof *outside; i++)
    CHECK(!is_loopback(outside[i]));
}

static void test_what_a_gnb_fills_in_by_itself_is_checked_too(void) {
  prbandit_config good = taken(BASE), c;
  char error[256];
  CHECK(config_is_usable(&good, error, sizeof error));
  memset(c.endpoint, 'x', sizeof c.endpoint);
  c = good, memset(c.endpoint, 'x', sizeof c.endpoint);
  CHECK(!config_is_usable(&c, error, sizeof error));
  c = good, memset(c.cell_id, 'x', sizeof c.cell_id);
  CHECK(!config_is_usable(&c, error, sizeof error));
  c = good, memset(c.curve_server_public, '0', 40);
  CHECK(!config_is_usable(&c, error, sizeof error));
  c = good, c.n_slices = 17;
  CHECK(!config_is_usable(&c, error, sizeof error));
  c = good, c.n_slices = 1;
  CHECK(!config_is_usable(&c, error, sizeof error));
  c = good, strcpy(c.endpoint, "tcp://10.0.0.1:1");
  CHECK(!config_is_usable(&c, error, sizeof error));
  CHECK_TEXT(error, "curve.server is not set");

  prbandit_cell cell = {106, 5, 30, {5, 1, 10, 2, 3}}, d;
  CHECK(cell_is_usable(&cell, error, sizeof error));
  d = cell, d.tdd = (prbandit_tdd){5, 3, 0, 0, 2};
  CHECK(cell_is_usable(&d, error, sizeof error));
  d = cell, d.n_prb = 0;
  CHECK(!cell_is_usable(&d, error, sizeof error));
  d = cell, d.min_prb = 107;
  CHECK(!cell_is_usable(&d, error, sizeof error));
  d = cell, d.scs_khz = 31;
  CHECK(!cell_is_usable(&d, error, sizeof error));
  d = cell, d.tdd.ul_symbols = 5;
  CHECK(!cell_is_usable(&d, error, sizeof error));
  d = cell, d.tdd.period_slots = 10;
  CHECK(!cell_is_usable(&d, error, sizeof error));
  d = cell, d.tdd = (prbandit_tdd){5, 4, 14, 0, 0};
  CHECK(!cell_is_usable(&d, error, sizeof error));
}

int main(void) {
  CHECK(mkdtemp(folder));
  test_a_whole_file();
  test_errors_name_the_line_and_the_key();
  test_keys();
  test_loopback();
  test_what_a_gnb_fills_in_by_itself_is_checked_too();
  return 0;
}
