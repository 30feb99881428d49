"""``openrtist``: styles, server, client, traffic generator, and what their frames say. One file a command."""

from __future__ import annotations

import click

from controller.cli import Lazy


@click.group(
    "openrtist",
    cls=Lazy,
    package=__name__,
    files={
        "client": "client",
        "import-style": "styles",
        "import-timestamps": "timestamps",
        "schedule": "traffic",
        "server": "serve",
        "table-ii": "table_ii",
        "traffic": "traffic",
    },
)
def openrtist() -> None:
    """Timestamped OpenRTiST: styles, server, client, traffic, and the paper's Table II."""
