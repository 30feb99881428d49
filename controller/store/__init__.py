"""The run record and the checkpoint: what is kept of a run, and how it is read back."""

from controller.store.checkpoint import Checkpoint, CheckpointError
from controller.store.recorder import AsyncRunStore
from controller.store.run import Retention, RunStore, StoreError
from controller.store.summary import Summary

__all__ = [
    "AsyncRunStore",
    "Checkpoint",
    "CheckpointError",
    "Retention",
    "RunStore",
    "StoreError",
    "Summary",
]
