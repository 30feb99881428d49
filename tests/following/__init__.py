"""A service of the tests whose allocator follows its users from cell to cell, and its application."""

from __future__ import annotations

NAME = "following"
