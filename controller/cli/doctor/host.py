"""What is to be checked: the host's roles, its configuration, keys and peers."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from controller.config import Config
from wire.roles import CONTROLLER, EDGE_AGENT, GNB_MOCK, OBSERVER, OPERATOR
from wire.security import Tls, is_loopback

CERTIFICATES = {"controller": CONTROLLER, "edge": EDGE_AGENT, "gnb": "", "ue": GNB_MOCK}
"""Role of a host -> that of the certificate that its process shows; a gNB shows its cell's CURVE key."""


@dataclass(slots=True)
class Host:
    """``config`` is that of the controller, None where there is none or it cannot be used; addresses are
    empty where there is nothing to look at."""

    roles: tuple[str, ...]
    config_file: Path | None
    config: Config | None
    keys: Path | None
    cell: str
    listens: Mapping[str, tuple[str, str]]
    """What is to be listened on here: setting -> (address, kind)."""
    ran: str
    qos: str
    operator: str
    edge: str
    backend: str
    gpus: tuple[str, ...]
    ptp_sockets: tuple[Path, ...]
    phc: Path | None
    oai: Path | None
    module: Path | None
    run: Path | None
    edge_metrics: str
    answer_s: float
    """How long a peer has for an answer."""
    _controller: dict[str, Any] | str | None = None
    _asking: threading.Lock = field(default_factory=threading.Lock)

    def certificate(self) -> str:
        """The role whose certificate this host shows to others; "" where it has none."""
        return next((CERTIFICATES[role] for role in self.roles if CERTIFICATES[role]), "")

    def tls(self, name: str) -> Tls | None:
        return Tls(self.keys, name) if self.keys and name else None

    @property
    def unread(self) -> bool:
        """Whether this is a controller's host whose configuration cannot be taken: its addresses are not
        known."""
        return self.config is None and "controller" in self.roles

    @property
    def one_host(self) -> bool:
        """Whether every address is of loopback: then all clocks are this one's."""
        given = (self.ran, self.qos, self.operator, self.edge, *(a for a, _ in self.listens.values()))
        return all(is_loopback(address) for address in given if address)

    def controller(self) -> dict[str, Any] | str:
        """The state of the controller that runs at the operator API's address, or why there is none."""
        with self._asking:
            if self._controller is None:
                self._controller = self._ask()
            return self._controller

    def is_of(self, state: Mapping[str, Any], pid: int | None) -> bool:
        """Whether a running controller was started with this host's configuration file; its path may be
        relative to where its process ``pid`` runs."""
        if self.config_file is None or not state["config_path"]:
            return False
        path = Path(state["config_path"])
        if pid is not None:
            with suppress(OSError):
                path = Path(f"/proc/{pid}/cwd").resolve() / path
        return path.resolve() == self.config_file.resolve()

    def _ask(self) -> dict[str, Any] | str:
        from controller.links.operator import OperatorClient

        if not self.operator:
            return "there is no operator API (links.operator.address, --operator)"
        names = (OPERATOR, OBSERVER, self.certificate())
        name = next((n for n in names if self.keys and n and (self.keys / f"{n}.key").exists()), OPERATOR)
        try:
            with OperatorClient(
                here(self.operator), self.tls(name), client="prbandit doctor", timeout_s=self.answer_s
            ) as client:
                return {**client.state(), "version": client.controller_version}
        except (OSError, ValueError) as error:
            return str(error)


def here(address: str) -> str:
    """Where a server that listens on every address is reached on its own host."""
    return address.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]").replace("*:", "127.0.0.1:")
