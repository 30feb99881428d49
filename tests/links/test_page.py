"""The page's bridge from HTTP to the operator API, over real sockets; the page itself is in tests/e2e."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.links import operator, page
from controller.links.counters import Counters
from controller.links.operator import Broadcaster, OperatorClient, OperatorServer
from controller.links.page import COUNTERS, PageServer
from tests.links.test_operator import Target, record, until
from wire import keys, operator_pb2, web
from wire.roles import METHODS, ROLES
from wire.security import InsecureAddress, Tls

OWN = {"Sec-Fetch-Site": "same-origin"}
JSON = {"Content-Type": "application/json", **OWN}


class Served:
    """A page in front of a target, beside the operator API that it shares a broadcaster with."""

    def __init__(self, tls: Tls | None = None, **limits: int) -> None:
        self.counters, self.target = Counters(), Target()
        self.broadcaster = Broadcaster(self.counters, keep=page.KEPT_DECISIONS, **limits)
        self.page = PageServer("127.0.0.1:0", tls, self.target, self.broadcaster)
        self.tls = tls

    def connect(self, role: str = "operator") -> http.client.HTTPConnection:
        if self.tls is None:
            return http.client.HTTPConnection("127.0.0.1", self.page.port, timeout=30)
        context = ssl.create_default_context(cafile=str(self.tls.ca_file))
        if role:
            shown = Tls(self.tls.folder, role)
            context.load_cert_chain(shown.certificate_file, shown.key_file)
        return http.client.HTTPSConnection("127.0.0.1", self.page.port, timeout=30, context=context)

    def ask(
        self,
        verb: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        role: str = "operator",
    ) -> tuple[int, Any, http.client.HTTPMessage]:
        """Status, body (from JSON where it is that) and headers of an answer."""
        connection = self.connect(role)
        try:
            data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
            connection.request(verb, path, data, headers or {})
            answer = connection.getresponse()
            text = answer.read()
            kind = answer.headers.get("Content-Type", "")
            return answer.status, json.loads(text) if kind == "application/json" else text, answer.headers
        finally:
            connection.close()

    def command(self, name: str, body: Any, **more: Any) -> tuple[int, Any]:
        return self.ask("POST", f"/api/{name}", body, JSON, **more)[:2]


@pytest.fixture
def served() -> Iterator[Served]:
    served = Served(max_subscribers=4)
    yield served
    served.page.close()


@pytest.fixture
def tls(tmp_path: Path) -> Tls:
    pytest.importorskip("cryptography", reason="keys need the extra 'keys'")
    keys.create(tmp_path, cells=["cell-1"])
    return Tls(tmp_path, "controller")


class Events:
    """A stream of decisions as a browser reads it."""

    def __init__(self, served: Served, headers: dict[str, str] | None = None) -> None:
        self.connection = served.connect()
        self.connection.request("GET", "/api/decisions", headers=headers or {})
        self.answer = self.connection.getresponse()

    def slots(self, n: int) -> list[int]:
        """The control slots of the next ``n`` decisions."""
        found = []
        while len(found) < n:
            line = self.answer.readline()
            assert line, "the stream ended"
            if line.startswith(b"data: "):
                found.append(json.loads(line[6:])["control_slot"])
        return found

    def close(self) -> None:
        self.answer.close()
        self.connection.close()


# ---- files, state, commands ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/", "/page.js", "/chart.js", "/page.css", "/icon.svg", "/api/state", "/no"]
)
def test_every_answer_has_the_headers_that_keep_the_browser_strict(served: Served, path: str) -> None:
    status, _, headers = served.ask("GET", path)
    assert status == (404 if path == "/no" else 200)
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy and "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff" and headers["Cache-Control"] == "no-store"


def test_the_files_name_nothing_of_another_host_and_hold_no_inline_code() -> None:
    folder = Path(page.__file__).parent / "page_files"
    for path in folder.iterdir():
        text = path.read_text()
        assert "http" not in text.replace("http://www.w3.org/2000/svg", ""), path
        for forbidden in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "style=",
            "onclick=",
        ):
            assert forbidden not in text, f"{path}: {forbidden}"


@pytest.mark.parametrize("path", ["/page.py", "/../page.py", "/page_files/page.js", "//etc/passwd", "/api"])
def test_nothing_else_is_served(served: Served, path: str) -> None:
    assert served.ask("GET", path)[0] == 404
    assert served.counters.get("page_malformed_total") == 1


def test_the_state_is_that_of_the_operator_api_with_the_verdict(served: Served) -> None:
    api = OperatorServer("127.0.0.1:0", None, served.target, served.broadcaster)
    api.start()
    try:
        with OperatorClient(f"127.0.0.1:{api.port}") as client:
            expected = client.state()
    finally:
        api.close(0)
    status, state, _ = served.ask("GET", "/api/state")
    assert status == 200
    assert {k: v for k, v in state.items() if k not in ("health", "may")} == json.loads(json.dumps(expected))
    assert state["health"]["status"] == "degraded"
    assert state["health"]["cells"]["cell-1"] == ["its gNB is not connected"]
    assert state["health"]["reasons"][0] == "cell cell-1: its gNB is not connected"
    assert "SetMode" in state["may"]


def test_commands_arrive_by_the_names_of_their_fields(served: Served) -> None:
    assert served.command("SetMode", {"cell_id": "cell-1", "mode": "frozen"}) == (
        200,
        {"ok": True, "message": "mode cell-1 frozen"},
    )
    served.command("SwitchPolicy", {"cell_id": "cell-1", "slice": "ar", "policy": "ucb1"})
    served.command("SetQuota", {"cell_id": "cell-1", "slice": "ar", "ul_prb": 20, "for_s": 60})
    served.command("Reload", {})
    assert served.target.told == [
        ("mode", "cell-1", "frozen"),
        ("policy", "cell-1", "ar", "ucb1", ""),
        ("quota", "cell-1", "ar", 20, None, 60.0),
        ("reload",),
    ]
    status, refused = served.command("SetMode", {"cell_id": "nosuch", "mode": "frozen"})
    assert status == 200 and not refused["ok"] and "unknown cell" in refused["message"]
    served.target.broken = True
    assert served.ask("GET", "/api/state")[0] == 500
    assert served.counters.get("operator_errors_total") == 1


METHODS_OF_ONE_ANSWER = [
    m.name for m in operator_pb2.DESCRIPTOR.services_by_name["Operator"].methods if not m.server_streaming
]


@pytest.mark.parametrize("name", METHODS_OF_ONE_ANSWER)
def test_every_method_of_the_operator_api_is_there(served: Served, name: str) -> None:
    status, answer = served.command(name, {"protocol_version": 1} if name == "Hello" else {})
    assert status == 200 and isinstance(answer, dict)


# ---- what is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example:80",
        "localhost.evil.example",
        "unix:80",
        "10.0.0.1",
        "",
        "a@localhost",
    ],
)
def test_a_name_that_is_not_this_hosts_is_refused(served: Served, host: str) -> None:
    for path in ("/", "/api/state", "/api/decisions"):
        assert served.ask("GET", path, headers={"Host": host})[0] == 421
    status, _, _ = served.ask("POST", "/api/SetMode", {"mode": "frozen"}, {**JSON, "Host": host})
    assert status == 421 and not served.target.told
    assert served.counters.get("page_foreign_total") == 4


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:8080", "[::1]:50064", "127.0.0.9"])
def test_any_name_of_loopback_is_this_hosts(served: Served, host: str) -> None:
    assert served.ask("GET", "/", headers={"Host": host})[0] == 200


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "https://localhost:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"},
        {"Sec-Fetch-Site": "cross-site", "Origin": "http://localhost:1"},
    ],
)
def test_a_command_of_another_site_is_refused(served: Served, headers: dict[str, str]) -> None:
    all_headers = {"Host": "localhost:1", "Content-Type": "application/json", **headers}
    status, answer, _ = served.ask("POST", "/api/SetMode", {"mode": "frozen"}, all_headers)
    assert status == 403 and "page itself" in answer["error"] and not served.target.told
    assert served.counters.get("page_foreign_total") == 1


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}])
def test_another_site_may_not_even_look(served: Served, headers: dict[str, str]) -> None:
    assert served.ask("GET", "/api/state", headers=headers)[0] == 403
    assert served.ask("GET", "/api/decisions", headers=headers)[0] == 403
    assert served.ask("GET", "/", headers=headers)[0] == 200  # a link to the page is no harm


def test_a_browser_without_fetch_metadata_commands_by_its_origin(served: Served) -> None:
    headers = {"Content-Type": "application/json", "Host": "localhost:1", "Origin": "http://localhost:1"}
    assert served.ask("POST", "/api/SetMode", {"mode": "frozen"}, headers)[0] == 200
    assert served.target.told


@pytest.mark.parametrize(
    ("body", "headers", "status", "text"),
    [
        (b"{}", {"Content-Type": "text/plain"}, 415, "application/json"),
        (b"{}", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "application/json"),
        (b"{", {}, 400, "no JSON"),
        (b"\xff", {}, 400, "no JSON"),
        (b"[" * 30_000, {}, 400, "no JSON"),
        (b"[]", {}, 400, "no JSON object"),
        (b'{"mode": 1}', {}, 400, "mode"),
        (b'{"mod": "active"}', {}, 400, "mod"),
        (b'{"mode": "\\ud800"}', {}, 400, "SetMode"),
        (b" " * (page.MAX_BODY_BYTES + 1), {}, 413, "bytes at most"),
        (b" " * 500_000, {}, 413, "bytes at most"),
        (b"{}", {"Content-Length": "-1"}, 411, "Content-Length"),
        (b'{"mode": "' + b"x" * 65 + b'"}', {}, 200, "longer than"),
    ],
)
def test_what_is_no_request_is_refused_and_changes_nothing(
    served: Served, body: bytes, headers: dict[str, str], status: int, text: str
) -> None:
    found, answer, _ = served.ask("POST", "/api/SetMode", body, {**JSON, **headers})
    assert found == status and text in (answer.get("error") or answer["message"])
    assert not served.target.told and served.ask("GET", "/api/state")[0] == 200
    assert served.counters.get("page_malformed_total") == (status != 200)


@pytest.mark.parametrize(
    ("verb", "path", "status"),
    [
        ("POST", "/api/Nonsense", 404),
        ("POST", "/api/WatchDecisions", 404),
        ("POST", "/api/__init__", 404),
        ("GET", "/api/SetMode", 405),
        ("POST", "/api/state", 405),
        ("DELETE", "/api/Reload", 405),
        ("POST", "/", 405),
    ],
)
def test_an_unknown_method_is_refused(served: Served, verb: str, path: str, status: int) -> None:
    found, answer, _ = served.ask(verb, path, {}, JSON)
    assert found == status and answer["error"] and not served.target.told
    if path == "/api/Nonsense":
        assert "SetMode" in answer["error"]


def test_beyond_loopback_the_page_needs_keys() -> None:
    with pytest.raises(InsecureAddress, match=r"links\.page\.address: 0\.0\.0\.0:0 .* security\.keys"):
        PageServer("0.0.0.0:0", None, Target(), Broadcaster())


# ---- decisions as they are made --------------------------------------------------------------------------


def test_decisions_come_with_those_before_and_from_the_last_known_on(served: Served) -> None:
    for slot in range(1, 4):
        served.broadcaster.publish({**record(slot), "time_ns": slot})
    stream = Events(served)
    assert stream.answer.headers["Content-Type"].startswith("text/event-stream")
    assert stream.slots(3) == [1, 2, 3]
    served.broadcaster.publish({**record(4), "time_ns": 4})
    assert stream.slots(1) == [4]
    again = Events(served, {"Last-Event-ID": "2"})
    assert again.slots(2) == [3, 4]
    stream.close()
    again.close()


def test_a_stream_outlives_the_time_of_a_request_and_ends_with_its_client(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(web, "REQUEST_S", 0.3)
    monkeypatch.setattr(page, "PING_S", 0.1)
    served = Served(max_subscribers=4)
    try:
        stream = Events(served)
        alive = 0
        while alive < 8:  # longer than a request may take
            line = stream.answer.readline()
            assert line, "the stream ended"
            alive += line == b": alive\n"
        served.broadcaster.publish(record(7))
        assert stream.slots(1) == [7] and len(served.broadcaster) == 1
        stream.close()
        until(lambda: len(served.broadcaster) == 0)
        assert served.counters.get("page_late_total") == 0
    finally:
        served.page.close()


def test_streams_are_bounded_and_leave_some_to_those_who_watch_otherwise(served: Served) -> None:
    streams = [Events(served) for _ in range(3)]
    until(lambda: len(served.broadcaster) == 3)
    status, answer, headers = served.ask("GET", "/api/decisions")
    assert status == 503 and "pages are open" in answer["error"] and headers["Retry-After"]
    assert served.counters.get("page_subscribers_refused_total") == 1
    served.broadcaster.subscribe()  # of four, one is not a page's
    assert served.ask("GET", "/api/state")[0] == 200
    for stream in streams:
        stream.close()
    served.broadcaster.publish(record(1))  # who is gone is noticed when something is to be told
    served.broadcaster.publish(record(2))


def test_closing_ends_the_streams(served: Served) -> None:
    stream = Events(served)
    served.page.close()
    assert stream.answer.read().endswith(b"\n\n")
    served.page.close()


def test_connections_that_say_nothing_are_bounded_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "REQUEST_S", 0.2)
    served = Served()
    try:
        silent = [socket.create_connection(("127.0.0.1", served.page.port)) for _ in range(40)]
        until(
            lambda: served.counters.get("page_late_total") + served.counters.get("page_crowded_total") >= 40
        )
        assert served.ask("GET", "/api/state")[0] == 200
        for connection in silent:
            connection.close()
    finally:
        served.page.close()


def test_what_is_kept_of_decisions_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    broadcaster = Broadcaster(keep=3)
    for slot in range(1, 6):
        for cell in ("a", "b"):
            broadcaster.publish({**record(slot, cell), "time_ns": slot})
    assert [(m.cell_id, m.control_slot) for m in broadcaster.recent(3)] == [
        ("a", 4),
        ("b", 4),
        ("a", 5),
        ("b", 5),
    ]
    assert len(broadcaster.recent()) == 6
    size = len(broadcaster.recent()[0].json)
    monkeypatch.setattr(operator, "KEPT_BYTES", 2 * size + size // 2)
    broadcaster.publish({**record(6, "a"), "time_ns": 6})
    assert [m.control_slot for m in broadcaster.recent() if m.cell_id == "a"] == [5, 6]
    unkept = Broadcaster()
    unkept.publish(record(1))
    assert unkept.recent() == []


# ---- over TLS --------------------------------------------------------------------------------------------


READERS = METHODS["/prbandit.operator.Operator/GetState"]


@pytest.mark.parametrize("role", ROLES)
def test_a_role_may_on_the_page_what_it_may_over_grpc(tls: Tls, role: str) -> None:
    served = Served(tls)
    try:
        status, state, _ = served.ask("GET", "/api/state", role=role)
        if role not in READERS:
            assert status == 403 and served.counters.get("page_denied_total") == 1
            return
        commands = role in METHODS["/prbandit.operator.Operator/SetMode"]
        assert status == 200 and ("SetMode" in state["may"]) == commands
        status, answer = served.command("SetMode", {"mode": "frozen"}, role=role)
        assert status == (200 if commands else 403), answer
        assert bool(served.target.told) == commands
        assert served.counters.get("page_denied_total") == (not commands)
    finally:
        served.page.close()


def test_without_a_certificate_of_our_authority_there_is_no_page(tls: Tls, tmp_path: Path) -> None:
    served = Served(tls)
    try:
        other = tmp_path / "other"
        keys.create(other, cells=["cell-1"])
        stranger = ssl.create_default_context(cafile=str(tls.ca_file))
        of_other = Tls(other, "operator")
        stranger.load_cert_chain(of_other.certificate_file, of_other.key_file)
        for context in (ssl.create_default_context(cafile=str(tls.ca_file)), stranger):
            connection = http.client.HTTPSConnection(
                "127.0.0.1", served.page.port, timeout=30, context=context
            )
            with pytest.raises((OSError, http.client.HTTPException)):
                connection.request("GET", "/")
                connection.getresponse()
            connection.close()
        plain = http.client.HTTPConnection("127.0.0.1", served.page.port, timeout=30)
        with pytest.raises((OSError, http.client.HTTPException)):
            plain.request("GET", "/")
            plain.getresponse()
        plain.close()
        until(lambda: served.counters.get("page_handshake_total") == 3)
    finally:
        served.page.close()


def test_a_revoked_certificate_sees_nothing_more(tls: Tls) -> None:
    served = Served(tls)
    try:
        shown = Tls(tls.folder, "operator")
        stream = Events(served)
        until(lambda: len(served.broadcaster) == 1)
        context = ssl.create_default_context(cafile=str(tls.ca_file))
        context.load_cert_chain(shown.certificate_file, shown.key_file)
        keys.revoke(tls.folder, "operator")

        def status() -> int:
            connection = http.client.HTTPSConnection(
                "127.0.0.1", served.page.port, timeout=30, context=context
            )
            connection.request("GET", "/api/state", headers={"Host": "controller:1"})
            return connection.getresponse().status

        until(lambda: status() == 403)
        assert served.counters.get("page_denied_total") >= 1
        served.broadcaster.publish(record(3))
        until(lambda: not len(served.broadcaster))
        stream.close()
    finally:
        served.page.close()


def test_over_tls_the_stream_and_another_sites_command(tls: Tls) -> None:
    served = Served(tls)
    try:
        stream = Events(served)
        until(lambda: len(served.broadcaster) == 1)
        served.broadcaster.publish(record(3))
        assert stream.slots(1) == [3]
        stream.close()
        # The certificate says who may be called so; the site of a command is still asked for.
        assert served.ask("GET", "/api/state", headers={"Host": "controller:1"})[0] == 200
        headers = {"Content-Type": "application/json", "Origin": "https://evil.example"}
        assert served.ask("POST", "/api/SetMode", {"mode": "frozen"}, headers)[0] == 403
        assert not served.target.told
    finally:
        served.page.close()


def test_every_counter_of_the_page_has_a_help_text(served: Served) -> None:
    served.ask("GET", "/no")
    served.ask("GET", "/", headers={"Host": "evil.example"})
    names = {name for name, _ in served.counters.snapshot() if name.startswith("page_")}
    assert names and names <= COUNTERS.keys()
