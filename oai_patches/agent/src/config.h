#ifndef PRBANDIT_CONFIG_H
#define PRBANDIT_CONFIG_H

#include "prbandit_agent.h"

/* What prbandit_start() can be given; else why not. */
bool config_is_usable(const prbandit_config *config, char *error, size_t size);
bool cell_is_usable(const prbandit_cell *cell, char *error, size_t size);

/* Whether a tcp:// endpoint can only be reached from this host: the rule of wire/security.py. */
bool is_loopback(const char *endpoint);

#endif
