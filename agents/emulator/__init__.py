"""The emulated testbed: NR cell, TCP applications and edge GPU, one NR slot at a time."""
