"""Follows the clock of the edge agent's GPU, and tells an emulated GPU how busy the applications keep it."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter

import grpc

from wire import PROTOCOL_VERSION, edge_pb2, edge_pb2_grpc, security
from wire.roles import EDGE_AGENT

log = logging.getLogger(__name__)


class EdgeFollower:
    """:attr:`sm_mhz` is the clock that the edge agent read back last, 0 while there is no edge agent.

    Two threads: one reads the stream of states, the other sends the load every ``load_period_s`` and gives up
    a stream that has been silent for ``silent_s``. Reconnects for ever.
    """

    def __init__(
        self,
        address: str,
        tls: security.Tls | None,
        *,
        holder: str,
        gpu: str = "",
        period_ms: int = 50,
        load_period_s: float = 0.5,
        silent_s: float = 3.0,
        call_s: float = 2.0,
        backoff_s: tuple[float, float] = (0.2, 5.0),
        setting: str = "--edge",
        missing: str = "--keys",
    ) -> None:
        self._address = address
        self._holder = holder
        self._gpu = gpu
        self._period_ms = period_ms
        self._load_period_s = load_period_s
        self._silent_s = silent_s
        self._call_s = call_s
        self._backoff_s = backoff_s
        self._closed = threading.Event()
        self._channel = security.grpc_channel(
            address, tls, server_role=EDGE_AGENT, setting=setting, missing=missing
        )
        self._call: grpc.Call | None = None
        self._last_state = 0.0
        self._load = 0.0
        self._takes_load = True
        self.sm_mhz = 0
        self.counters: Counter[str] = Counter()
        self._threads = [
            threading.Thread(target=self._watch_for_ever, name="edge-watch", daemon=True),
            threading.Thread(target=self._send_loads, name="edge-load", daemon=True),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._closed.set()
        if self._call is not None:
            self._call.cancel()
        self._channel.close()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    @property
    def connected(self) -> bool:
        return self.sm_mhz > 0

    def set_load(self, utilisation: float) -> None:
        """The utilisation (0..1) that the next message to an emulated GPU says."""
        self._load = min(1.0, max(0.0, utilisation))

    def _watch_for_ever(self) -> None:
        stub = edge_pb2_grpc.EdgeStub(self._channel)
        wait = self._backoff_s[0]
        logged = ""
        while not self._closed.is_set():
            why = "the edge agent ended the stream"
            try:
                self._watch(stub)
            except grpc.RpcError as error:
                why = f"{error.code().name}: {error.details()}"
            except ValueError as error:
                # The channel was closed under the call.
                why = str(error)
            if self.sm_mhz:
                wait, logged = self._backoff_s[0], ""
            self.sm_mhz = 0
            self._call = None
            self.counters["streams_ended"] += 1
            if why != logged and not self._closed.is_set():
                log.warning("edge agent at %s: %s; default clocks, trying again", self._address, why)
                logged = why
            self._closed.wait(wait)
            wait = min(2 * wait, self._backoff_s[1])

    def _watch(self, stub: edge_pb2_grpc.EdgeStub) -> None:
        stub.Hello(
            edge_pb2.EdgeHello(protocol_version=PROTOCOL_VERSION, holder=self._holder), timeout=self._call_s
        )
        self._takes_load = True
        self._last_state = time.monotonic()
        self._call = call = stub.WatchGpu(edge_pb2.WatchGpuRequest(gpu=self._gpu, period_ms=self._period_ms))
        for state in call:
            self._last_state = time.monotonic()
            if not self.sm_mhz:
                self.counters["streams"] += 1
                log.info("edge agent at %s: GPU %s at %d MHz", self._address, state.gpu, state.sm_mhz)
            if state.sm_mhz:
                self.sm_mhz = state.sm_mhz
            else:
                self.counters["impossible_states"] += 1

    def _send_loads(self) -> None:
        stub = edge_pb2_grpc.EmulatedGpuStub(self._channel)
        while not self._closed.wait(self._load_period_s):
            call = self._call
            if call is None:
                continue
            if time.monotonic() - self._last_state > self._silent_s:
                self.counters["silent"] += 1
                log.warning("edge agent at %s: silent for %g s", self._address, self._silent_s)
                call.cancel()
                continue
            if not (self.connected and self._takes_load):
                continue
            try:
                stub.SetLoad(
                    edge_pb2.EmulatedLoad(gpu=self._gpu, utilisation=self._load), timeout=self._call_s
                )
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                    # A real GPU knows its load.
                    self._takes_load = False
                else:
                    self.counters["load_errors"] += 1
            except ValueError:
                return
