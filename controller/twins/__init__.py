"""Digital twins: the controller's models of users, from what has been seen of them."""

from __future__ import annotations

from controller.twins.base import Twin

__all__ = ["Twin"]
