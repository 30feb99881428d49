"""TCP links that can be cut and delayed, by a proxy in a process of its own: it must not wait for us.

A cut link says nothing and loses nothing: connections stand and bytes wait. A proxy needs no rights, and
spares the connections of the tests, which network namespaces with netem would not.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

_POLL_S = 0.02


class Links:
    """Forwards each ``port`` of loopback to another, both ways, until :meth:`close`."""

    def __init__(self, forward: Mapping[int, int]) -> None:
        spawn = multiprocessing.get_context("spawn")
        self._delay_s, self._cut = spawn.Value("d", 0.0), spawn.Value("b", 0)
        arguments = (dict(forward), self._delay_s, self._cut)
        self._process = spawn.Process(target=_main, args=arguments, daemon=True)
        self._process.start()

    def cut(self, yes: bool) -> None:
        self._cut.value = int(yes)

    def delay(self, seconds: float) -> None:
        """Each way."""
        self._delay_s.value = seconds

    def close(self) -> None:
        self._process.terminate()
        self._process.join()


def _main(forward: dict[int, int], delay_s: Any, cut: Any) -> None:
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(forward, delay_s, cut))


async def _serve(forward: dict[int, int], delay_s: Any, cut: Any) -> None:
    now = asyncio.get_running_loop().time

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(1024)

        async def read() -> None:
            data = b"."
            while data:
                data = await reader.read(1 << 16)
                await queue.put((now() + delay_s.value, data))

        async def write() -> None:
            while (item := await queue.get())[1]:
                while cut.value or item[0] > now():
                    await asyncio.sleep(max(_POLL_S, item[0] - now()))
                writer.write(item[1])
                await writer.drain()

        with suppress(OSError):
            await asyncio.gather(read(), write())
        writer.close()

    async def accept(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    for port, to in forward.items():
        await asyncio.start_server(lambda r, w, to=to: accept(to, r, w), "127.0.0.1", port)
    await asyncio.Event().wait()
