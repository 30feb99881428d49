"""What the commands of ``openrtist`` share."""

from __future__ import annotations

import importlib
import logging
from pathlib import Path
from typing import Any

import click

from wire.definitions.extras import needs
from wire.security import Tls

keys_option = click.option("--keys", help="Folder of TLS certificates (prbandit keys).")
PATH = click.Path(path_type=Path)
FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


def load(name: str) -> Any:
    """A module of the openrtist room; its packages are an extra."""
    with needs("openrtist"):
        return importlib.import_module(f"openrtist.{name}")


def tls_of(keys: str | None, certificate: str) -> Tls | None:
    """What ``--keys`` and ``--certificate`` say."""
    return Tls(Path(keys), certificate) if keys else None


def quiet_gabriel() -> None:
    """Gabriel logs an error for every frame that is dropped; here they are counted."""
    for name in ("gabriel_server", "gabriel_client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
