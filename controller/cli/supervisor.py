"""Word to the service manager that started this process (sd_notify(3)): it is up, and it does not hang."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def tell_alive() -> None:
    """What systemd's ``Type=notify`` and ``WatchdogSec`` wait for; nothing where nobody asked for it.

    Called about once a second while all is well; the first call says that the process is up.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    # Who is not heard is started again; to wait for the listener would be to hang.
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.setblocking(False)
        out.sendto(b"READY=1\nWATCHDOG=1", address)
