"""How a cell's PRBs are divided among slices. Nowhere else decides it."""

from controller.slicing.maxmin import divide

__all__ = ["divide"]
