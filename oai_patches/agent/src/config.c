#include "config.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <zmq.h>

enum { Z85_SIZE = 40 };

static bool fail(char *error, size_t size, const char *format, ...) __attribute__((format(printf, 3, 4)));

static bool fail(char *error, size_t size, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(error, size, format, arguments);
  va_end(arguments);
  return false;
}

/* ---- values ---------------------------------------------------------------------------------------------- */

/* The host of tcp://HOST:PORT; a source address before ';' is the host's own business. */
static bool host_of(const char *endpoint, char *host, size_t size) {
  static const char scheme[] = "tcp://";
  if (strncmp(endpoint, scheme, sizeof scheme - 1) != 0)
    return false;
  const char *from = endpoint + sizeof scheme - 1;
  const char *semicolon = strrchr(from, ';');
  if (semicolon)
    from = semicolon + 1;
  const char *end = strrchr(from, ':');
  char *after;
  if (!end || !isdigit((unsigned char)end[1]))
    return false;
  long port = strtol(end + 1, &after, 10);
  if (*after || port < 1 || port > 65535)
    return false;
  if (*from == '[') {
    if (end == from || end[-1] != ']')
      return false;
    from++, end--;
  }
  size_t n = (size_t)(end - from);
  if (n < 1 || n >= size)
    return false;
  memcpy(host, from, n);
  host[n] = '\0';
  return true;
}

bool is_loopback(const char *endpoint) {
  char host[128];
  struct in_addr v4;
  struct in6_addr v6;
  if (!host_of(endpoint, host, sizeof host))
    return false;
  if (strcasecmp(host, "localhost") == 0)
    return true;
  if (inet_pton(AF_INET, host, &v4) == 1)
    return (ntohl(v4.s_addr) >> 24) == 127;
  if (inet_pton(AF_INET6, host, &v6) != 1)
    return false;
  return IN6_IS_ADDR_LOOPBACK(&v6) || (IN6_IS_ADDR_V4MAPPED(&v6) && v6.s6_addr[12] == 127);
}

static bool is_cell_id(const char *id) {
  size_t n = strnlen(id, PRBANDIT_CELL_ID_SIZE);
  return n && n < PRBANDIT_CELL_ID_SIZE && isalnum((unsigned char)id[0]) &&
         strspn(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-") == n;
}

static bool is_name(const char *name) {
  size_t n = strnlen(name, PRBANDIT_NAME_SIZE);
  for (size_t i = 0; i < n; i++)
    if (!isgraph((unsigned char)name[i]))
      return false;
  return n && n < PRBANDIT_NAME_SIZE;
}

static bool is_key(const char *key) {
  uint8_t binary[32];
  return strnlen(key, Z85_SIZE + 1) == Z85_SIZE && zmq_z85_decode(binary, key);
}

bool config_is_usable(const prbandit_config *c, char *error, size_t size) {
  char host[128];
  if (strnlen(c->endpoint, sizeof c->endpoint) == sizeof c->endpoint || !host_of(c->endpoint, host, sizeof host))
    return fail(error, size, "endpoint: %.128s is not tcp://HOST:PORT", c->endpoint);
  if (!is_cell_id(c->cell_id))
    return fail(error, size, "cell: %.64s is no cell id: letters, digits and ._:- only, 63 at most", c->cell_id);
  bool server = c->curve_server_public[0], public = c->curve_public[0], secret = c->curve_secret[0];
  if (server != public || public != secret)
    return fail(error, size, "curve: %s is missing", server ? "the cell's own key pair" : "the controller's key");
  if (server && !(is_key(c->curve_server_public) && is_key(c->curve_public) && is_key(c->curve_secret)))
    return fail(error, size, "curve: a key is not 40 characters of Z85");
  if (!server && !is_loopback(c->endpoint))
    return fail(error, size,
                "endpoint: %s is not a loopback address and curve.server is not set (`prbandit keys` writes the"
                " keys)",
                c->endpoint);
  if (c->n_slices > PRBANDIT_MAX_SLICES)
    return fail(error, size, "slice: %u slices, %d at most", c->n_slices, PRBANDIT_MAX_SLICES);
  for (uint32_t i = 0; i < c->n_slices; i++) {
    const prbandit_slice_name *s = &c->slices[i];
    if (!is_name(s->slice))
      return fail(error, size, "slice: %.32s is no name: 1..%d visible characters", s->slice,
                  PRBANDIT_NAME_SIZE - 1);
    if (!s->snssai.sst || s->snssai.sd > PRBANDIT_NO_SD)
      return fail(error, size, "slice.%s: no S-NSSAI", s->slice);
    for (uint32_t j = 0; j < i; j++)
      if (s->snssai.sst == c->slices[j].snssai.sst && s->snssai.sd == c->slices[j].snssai.sd)
        return fail(error, size, "slice.%s: the S-NSSAI is that of slice.%s", s->slice, c->slices[j].slice);
  }
  return true;
}

bool cell_is_usable(const prbandit_cell *c, char *error, size_t size) {
  const prbandit_tdd *t = &c->tdd;
  if (c->n_prb < 1 || c->n_prb > 275)
    return fail(error, size, "cell: %u PRB is outside 1..275", c->n_prb);
  if (c->min_prb < 1 || c->min_prb > c->n_prb)
    return fail(error, size, "cell: a smallest grant of %u PRB is outside 1..%u", c->min_prb, c->n_prb);
  if (c->scs_khz != 15 && c->scs_khz != 30 && c->scs_khz != 60 && c->scs_khz != 120)
    return fail(error, size, "cell: SCS of %u kHz is none of 15, 30, 60, 120", c->scs_khz);
  if (t->dl_symbols + t->ul_symbols > 14)
    return fail(error, size, "cell: TDD pattern with %u DL and %u UL symbols in one NR slot", t->dl_symbols,
                t->ul_symbols);
  int mixed = t->period_slots - t->dl_slots - t->ul_slots;
  if (mixed != 1 && (mixed != 0 || t->dl_symbols || t->ul_symbols))
    return fail(error, size, "cell: TDD period of %u NR slots is not %u DL, one mixed and %u UL",
                t->period_slots, t->dl_slots, t->ul_slots);
  if (!(t->dl_slots || t->dl_symbols) || !(t->ul_slots || t->ul_symbols))
    return fail(error, size, "cell: TDD pattern that carries one direction only");
  return true;
}

/* ---- the file -------------------------------------------------------------------------------------------- */

typedef struct {
  const char *path;
  int line, endpoint_line;
  prbandit_config *config;
  char *error;
  size_t error_size;
} reader;

#define AT_KEY(r, key, format, ...) \
  fail((r)->error, (r)->error_size, "%s:%d: %s: " format, (r)->path, (r)->line, key, __VA_ARGS__)

static bool set_text(reader *r, const char *key, char *to, size_t size, const char *value) {
  if (to[0])
    return AT_KEY(r, key, "%s", "is there twice");
  if (strlen(value) >= size)
    return AT_KEY(r, key, "longer than %zu bytes", size - 1);
  memcpy(to, value, strlen(value) + 1);
  return true;
}

/* A key file as `prbandit keys` writes it. A relative path begins at the folder of the configuration. */
static bool set_key(reader *r, const char *key, char *to, const char *value) {
  char path[1024], text[64];
  const char *slash = strrchr(r->path, '/');
  int folder = *value == '/' || !slash ? 0 : (int)(slash + 1 - r->path);
  if (to[0])
    return AT_KEY(r, key, "%s", "is there twice");
  if (snprintf(path, sizeof path, "%.*s%s", folder, r->path, value) >= (int)sizeof path)
    return AT_KEY(r, key, "%s", "the path is too long");
  FILE *file = fopen(path, "re");
  if (!file)
    return AT_KEY(r, key, "key file %s: %s", path, strerror(errno));
  size_t n = fread(text, 1, sizeof text - 1, file);
  fclose(file);
  while (n && isspace((unsigned char)text[n - 1]))
    n--;
  text[n] = '\0';
  if (!is_key(text))
    return AT_KEY(r, key, "key file %s is not a CURVE key (40 characters of Z85)", path);
  memcpy(to, text, Z85_SIZE + 1);
  return true;
}

/* SST[-SD]: 1..255, and six hexadecimal digits. */
static bool read_snssai(const char *value, prbandit_snssai *to) {
  char *end;
  if (!isdigit((unsigned char)*value))
    return false;
  unsigned long sst = strtoul(value, &end, 10), sd = PRBANDIT_NO_SD;
  if (*end == '-') {
    if (strspn(end + 1, "0123456789abcdefABCDEF") != 6 || end[7])
      return false;
    sd = strtoul(end + 1, &end, 16);
  }
  *to = (prbandit_snssai){(uint8_t)sst, (uint32_t)sd};
  return !*end && sst >= 1 && sst <= 255;
}

static bool set_slice(reader *r, const char *key, const char *name, const char *value) {
  prbandit_config *c = r->config;
  if (!is_name(name))
    return AT_KEY(r, key, "the name is not of 1..%d visible characters", PRBANDIT_NAME_SIZE - 1);
  if (c->n_slices == PRBANDIT_MAX_SLICES)
    return AT_KEY(r, key, "more than %d slices", PRBANDIT_MAX_SLICES);
  prbandit_slice_name *s = &c->slices[c->n_slices];
  if (!read_snssai(value, &s->snssai))
    return AT_KEY(r, key, "%s is not SST (1..255) or SST-SD (six hexadecimal digits)", value);
  for (uint32_t i = 0; i < c->n_slices; i++) {
    if (strcmp(c->slices[i].slice, name) == 0)
      return AT_KEY(r, key, "%s", "is there twice");
    if (c->slices[i].snssai.sst == s->snssai.sst && c->slices[i].snssai.sd == s->snssai.sd)
      return AT_KEY(r, key, "%s is the S-NSSAI of slice.%s", value, c->slices[i].slice);
  }
  strcpy(s->slice, name);
  c->n_slices++;
  return true;
}

static bool set(reader *r, const char *key, const char *value) {
  prbandit_config *c = r->config;
  char host[128];
  if (strcmp(key, "endpoint") == 0) {
    r->endpoint_line = r->line;
    if (!host_of(value, host, sizeof host))
      return AT_KEY(r, key, "%s is not tcp://HOST:PORT", value);
    return set_text(r, key, c->endpoint, sizeof c->endpoint, value);
  }
  if (strcmp(key, "cell") == 0) {
    if (!is_cell_id(value))
      return AT_KEY(r, key, "%s is no cell id: letters, digits and ._:- only, 63 at most", value);
    return set_text(r, key, c->cell_id, sizeof c->cell_id, value);
  }
  if (strcmp(key, "curve.server") == 0)
    return set_key(r, key, c->curve_server_public, value);
  if (strcmp(key, "curve.secret") == 0)
    return set_key(r, key, c->curve_secret, value);
  if (strncmp(key, "slice.", 6) == 0)
    return set_slice(r, key, key + 6, value);
  return AT_KEY(r, key, "%s", "unknown key (endpoint, cell, curve.server, curve.secret, slice.NAME)");
}

static char *trim(char *text) {
  text += strspn(text, " \t\r");
  for (char *end = text + strlen(text); end > text && strchr(" \t\r", end[-1]);)
    *--end = '\0';
  return text;
}

static bool read_line(reader *r, char *line) {
  for (char *c = line; (c = strchr(c, '#')); c++)
    if (c == line || c[-1] == ' ' || c[-1] == '\t') {
      *c = '\0';
      break;
    }
  char *key = trim(line), *value = strchr(line, '=');
  if (!*key)
    return true;
  if (!value)
    return AT_KEY(r, key, "%s", "is not KEY = VALUE");
  *value++ = '\0';
  key = trim(key);
  value = trim(value);
  if (!*key || !*value)
    return AT_KEY(r, key, "%s", *key ? "has no value" : "a value without a key");
  return set(r, key, value);
}

static bool read_file(reader *r, FILE *file) {
  char line[1024];
  while (fgets(line, sizeof line, file)) {
    r->line++;
    size_t n = strlen(line);
    if (n && line[n - 1] == '\n')
      line[--n] = '\0';
    else if (!feof(file))
      return fail(r->error, r->error_size, "%s:%d: longer than %zu bytes or with a zero byte", r->path, r->line,
                  sizeof line - 2);
    if (!read_line(r, line))
      return false;
  }
  return !ferror(file) || fail(r->error, r->error_size, "%s: %s", r->path, strerror(errno));
}

static bool complete(reader *r) {
  prbandit_config *c = r->config;
  const char *missing = !c->endpoint[0]                                   ? "endpoint"
                        : !c->cell_id[0]                                  ? "cell"
                        : c->curve_secret[0] && !c->curve_server_public[0] ? "curve.server"
                        : c->curve_server_public[0] && !c->curve_secret[0] ? "curve.secret"
                                                                           : NULL;
  if (missing)
    return fail(r->error, r->error_size, "%s: %s: is missing", r->path, missing);
  if (c->curve_secret[0] && zmq_curve_public(c->curve_public, c->curve_secret) != 0)
    return fail(r->error, r->error_size, "%s: curve.secret: %s", r->path, zmq_strerror(zmq_errno()));
  char why[256];
  /* Each value was checked with its line: what is left is that the endpoint needs keys. */
  if (!config_is_usable(c, why, sizeof why))
    return fail(r->error, r->error_size, "%s:%d: %s", r->path, r->endpoint_line, why);
  return true;
}

int prbandit_config_read(const char *path, prbandit_config *config, char *error, size_t error_size) {
  prbandit_config c = {0};
  reader r = {.path = path, .config = &c, .error = error, .error_size = error_size};
  FILE *file = fopen(path, "re");
  if (!file) {
    fail(error, error_size, "%s: %s", path, strerror(errno));
    return -1;
  }
  bool good = read_file(&r, file);
  fclose(file);
  if (!good || !complete(&r))
    return -1;
  *config = c;
  return 0;
}
