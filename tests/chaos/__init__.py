"""A seeded campaign of broken and hostile peers against the real processes: ``python -m tests.chaos``."""
