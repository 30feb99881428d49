"""``relay.py FROM TO FILE``: pass Ethernet frames both ways, those from FROM late by the seconds in FILE.

FILE is read twenty times a second. The order of frames is kept.
"""

from __future__ import annotations

import select
import socket
import sys
import time
from collections import deque
from pathlib import Path

_ALL = 0x0003
_OUTGOING = 4


def main(late: str, prompt: str, file: Path) -> None:
    ends = []
    for interface in (late, prompt):
        end = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ALL))
        end.bind((interface, _ALL))
        ends.append(end)
    master, client = ends
    held: deque[tuple[float, bytes]] = deque()
    delay_s, look_at = 0.0, 0.0
    while True:
        now = time.monotonic()
        if now >= look_at:
            delay_s, look_at = float(file.read_text()), now + 0.05
        while held and held[0][0] <= now:
            client.send(held.popleft()[1])
        wait = min(held[0][0] - now, look_at - now) if held else look_at - now
        ready, _, _ = select.select(ends, [], [], max(0.0, wait))
        for end in ready:
            frame, (_, _, kind, _, _) = end.recvfrom(65_536)
            if kind == _OUTGOING:
                continue
            if end is client:
                master.send(frame)
            elif delay_s or held:
                held.append((time.monotonic() + delay_s, frame))
            else:
                client.send(frame)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
