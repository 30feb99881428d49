"""Keys, clock, GPU, OAI module and limits of a host: every failure is a real one, and names its remedy."""

from __future__ import annotations

import _ctypes
import ctypes
import datetime as dt
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from controller.cli.doctor import clock
from controller.cli.doctor.clock import KernelClock, adjtimex
from controller.cli.ports import free_ports
from tests.agents.gpu import stub as stub_module
from tests.agents.gpu.stub import DRIVER_NOT_LOADED, Stub
from tests.agents.ptp.fake import FakePtp4l
from tests.cli.doctor.harness import CLI, Report, configuration, doctor, doctor_process
from tests.launch import python
from wire import keys as wire_keys
from wire.revocation import fingerprint
from wire.security import Tls

PATIENCE_S = 60.0

# ---- keys ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("cryptography")
    folder = tmp_path_factory.mktemp("keys") / "a"
    wire_keys.create(folder, cells=["cell-1"])
    return folder


@pytest.fixture
def keys(whole: Path, tmp_path: Path) -> Path:
    """A folder of its own for every test."""
    shutil.copytree(whole, tmp_path / "keys")
    return tmp_path / "keys"


@pytest.fixture
def check(keys: Path, tmp_path: Path) -> Callable[[], Report]:
    """Doctor of the controller's host with that folder."""
    file = configuration(tmp_path / "config.yaml", keys=keys)
    return lambda: doctor(file)


def test_a_whole_key_folder_is_well(check: Callable[[], Report]) -> None:
    report = check()
    assert [c["text"] for c in report.of("keys") if c["status"] != "ok"] == []
    assert {c["text"].partition(":")[0] for c in report.of("certificates", "ok")} == {
        "the authority",
        "controller",
        "operator",
    }
    assert any("cells that may connect: cell-1" in c["text"] for c in report.of("keys"))


def test_a_key_that_all_can_read_is_told_and_its_remedy_mends_it(
    check: Callable[[], Report], keys: Path
) -> None:
    (keys / "controller.key").chmod(0o644)
    report = check()
    found = report.one("keys", "fail")
    assert found["remedy"] == f"chmod o= {keys / 'controller.key'}"
    subprocess.run(found["remedy"], shell=True, check=True)
    found = check().one("keys", "warning")
    subprocess.run(found["remedy"], shell=True, check=True)
    assert not check().of("keys", "warning") and not check().of("keys", "fail")


def test_a_missing_file_is_told_with_the_command_that_writes_it(
    check: Callable[[], Report], keys: Path
) -> None:
    (keys / "curve" / "cells" / "cell-1.pub").unlink()
    (keys / "curve" / "cells" / "cell-1.key").unlink()
    found = check().of("keys", "fail")
    assert found and all("`prbandit keys" in c["remedy"] for c in found)
    command = found[0]["remedy"].split("`")[1].replace("--cell CELL --host HOST", "--cell cell-1")
    subprocess.run([*CLI, *command.split()[1:]], check=True, stdout=subprocess.DEVNULL)
    assert not check().of("keys", "fail")


def test_a_curve_pair_that_does_not_match_is_told(check: Callable[[], Report], keys: Path) -> None:
    shutil.copy(keys / "curve" / "cells" / "cell-1.pub", keys / "curve" / "controller.pub")
    assert "controller.pub is not the public key" in check().one("keys", "fail")["text"]


def test_a_certificate_of_another_authority_is_told(
    check: Callable[[], Report], keys: Path, tmp_path: Path
) -> None:
    wire_keys.create(tmp_path / "other", cells=["cell-1"])
    for suffix in ("crt", "key"):
        shutil.copy(tmp_path / "other" / f"controller.{suffix}", keys)
    found = check().one("certificates", "fail")
    assert f"was not signed by {keys / 'ca.crt'}" in found["text"]


def test_a_key_of_a_cell_that_is_not_configured_is_told(check: Callable[[], Report], keys: Path) -> None:
    shutil.copy(keys / "curve" / "cells" / "cell-1.key", keys / "curve" / "cells" / "cell-9.key")
    wire_keys.create(keys / "more", cells=["cell-9"])
    shutil.copy(keys / "more" / "curve" / "cells" / "cell-9.pub", keys / "curve" / "cells")
    shutil.rmtree(keys / "more")
    (keys / "curve" / "cells" / "cell-9.key").unlink()
    found = check().one("keys", "warning")
    subprocess.run(found["remedy"], shell=True, check=True)
    assert not check().of("keys", "warning")


@pytest.mark.parametrize(
    ("days", "status", "says"), [(10, "warning", "holds until"), (-1, "fail", "has expired")]
)
def test_a_certificate_that_ends_is_told_before_and_after(
    check: Callable[[], Report], keys: Path, days: int, status: str, says: str
) -> None:
    end_after(keys, "controller", days)
    found = check().one("certificates", status)
    assert says in found["text"] and "controller.crt" in found["text"] and "prbandit keys" in found["remedy"]


def end_after(keys: Path, name: str, days: int) -> None:
    """The same certificate, that ends so many days from now."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization

    old = x509.load_pem_x509_certificate((keys / f"{name}.crt").read_bytes())
    ca_key = serialization.load_pem_private_key((keys / "ca.key").read_bytes(), None)
    end = dt.datetime.now(dt.UTC) + dt.timedelta(days=days)
    builder = x509.CertificateBuilder().subject_name(old.subject).issuer_name(old.issuer)
    builder = builder.public_key(old.public_key()).serial_number(x509.random_serial_number())
    builder = builder.not_valid_before(end - dt.timedelta(days=100)).not_valid_after(end)
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    new = builder.sign(ca_key, hashes.SHA256())  # type: ignore[arg-type]
    (keys / f"{name}.crt").write_bytes(new.public_bytes(serialization.Encoding.PEM))


def test_a_certificate_that_is_revoked_and_a_list_that_is_none_are_told(
    check: Callable[[], Report], keys: Path
) -> None:
    pem = Tls(keys, "controller").certificate_file.read_bytes()
    (keys / "revoked").write_text(f"{fingerprint(pem)} controller\n")
    assert any("is revoked" in found["text"] for found in check().of("certificates", "fail"))
    (keys / "revoked").write_text("controller\n")
    (found,) = check().of("certificates", "fail")
    assert "revoked:1: 'controller' is no SHA-256" in found["text"]


def test_addresses_beyond_loopback_without_keys_fail() -> None:
    report = doctor("--role", "edge", "--backend", "emulated", "--address", "0.0.0.0:0")
    assert "--keys DIR" in report.one("keys", "fail")["remedy"]


# ---- clock -----------------------------------------------------------------------------------------------


@pytest.fixture
def ptp4l(tmp_path: Path) -> Iterator[FakePtp4l]:
    fake = FakePtp4l(tmp_path / "ptp4l")
    # A Sync before every answer, as with a master that sends eight a second.
    fake.odd = lambda id, answer: [answer] if not setattr(fake, "ingress_ns", fake.ingress_ns + 1) else []
    yield fake
    fake.close()


def clock_of(ptp4l: FakePtp4l, *arguments: object) -> Report:
    return doctor("--role", "edge", "--backend", "emulated", "--ptp-socket", ptp4l.path, *arguments)


def test_a_clock_that_follows_its_master_is_well(ptp4l: FakePtp4l) -> None:
    texts = [c["text"] for c in clock_of(ptp4l).of("clock", "ok")]
    assert texts == [
        "ptp4l: SLAVE of 860bb4.fffe.2a41e2, off by 0.2 us",
        "the network's time is UTC or its own",
    ]


def test_a_clock_that_is_off_and_one_without_a_master_fail(ptp4l: FakePtp4l) -> None:
    ptp4l.offset_ns = 2e6
    assert "more than 1000 us" in clock_of(ptp4l).one("clock", "fail")["text"]
    ptp4l.offset_ns, ptp4l.states = 0.0, ["LISTENING"]
    found = clock_of(ptp4l).one("clock", "fail")
    assert "not synchronised: LISTENING" in found["text"] and "journalctl -u ptp4l" in found["remedy"]


def test_a_master_that_is_wrong_about_tai_is_told(ptp4l: FakePtp4l) -> None:
    ptp4l.utc_offset_s, ptp4l.time_flags = 35, 0x08
    assert "35 s ahead of UTC" in clock_of(ptp4l).one("clock", "warning")["text"]


def test_a_ptp4l_that_does_not_answer_holds_nothing_up(ptp4l: FakePtp4l) -> None:
    ptp4l.odd = lambda id, answer: []
    assert any("no answer within" in c["text"] for c in clock_of(ptp4l).of("clock"))


@pytest.mark.parametrize(
    ("kernel", "role", "status", "says"),
    [
        (KernelClock(False, 0.0), "edge", "fail", "nothing synchronises"),
        (KernelClock(False, 0.0), "controller", "warning", "nothing synchronises"),
        (KernelClock(True, 40_000.0), "edge", "warning", "off by up to 40000 us"),
        (KernelClock(True, 200.0), "edge", "ok", "off by up to 200 us"),
    ],
)
def test_without_ptp4l_the_kernel_says_what_the_clock_is_worth(
    kernel: KernelClock, role: str, status: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "adjtimex", lambda: kernel)
    report = doctor("--role", role, "--backend", "emulated", "--ptp-socket", tmp_path / "none")
    assert says in report.one("clock", status)["text"]


def test_the_kernel_s_clock_is_read_where_its_fields_are() -> None:
    timex = clock._Timex()
    if ctypes.CDLL(None).adjtimex(ctypes.byref(timex)) < 0:
        pytest.skip("adjtimex(2) is not permitted here")
    assert abs(timex.tick - 10_000) <= 1_000 and abs(timex.sec - time.time()) < 60
    kernel = adjtimex()
    assert kernel is not None and kernel.synchronised == (timex.status & 0x40 == 0)


# ---- GPU -------------------------------------------------------------------------------------------------


@pytest.fixture
def stub(tmp_path: Path) -> Stub:
    """A GPU behind the stub libnvidia-ml.so.1."""
    if find_spec("pynvml") is None:
        pytest.skip("nvidia-ml-py is not installed")
    try:
        stub_module.build()
    except stub_module.NoCompiler as missing:
        pytest.skip(str(missing))
    return Stub(tmp_path / "gpus")


def gpu(stub: Stub, *arguments: object, before: tuple[str, ...] = (), **environment: str) -> Report:
    return doctor_process(
        "--role",
        "edge",
        "--address",
        "127.0.0.1:0",
        *arguments,
        before=before,
        environment=stub.environment(**environment),
    )


def test_a_gpu_is_found_and_nothing_is_set(stub: Stub) -> None:
    texts = [c["text"] for c in gpu(stub).of("GPU", "ok")]
    assert "driver answers" in texts[0] and "121 clocks, 300 to 2100 MHz" in texts[1]
    assert stub.gpu.locks == stub.gpu.resets == 0


def test_no_driver_fails(stub: Stub) -> None:
    stub.state.init_error = DRIVER_NOT_LOADED
    assert "nvidia-smi" in gpu(stub).one("GPU", "fail")["remedy"]


def test_the_old_pynvml_is_told_with_what_replaces_it(stub: Stub, tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "pynvml.py").write_text("def nvmlInit():\n    pass\n")
    path = os.pathsep.join([str(tmp_path / "old"), *sys.path])
    found = gpu(stub, PYTHONPATH=path).one("GPU", "fail")
    assert found["remedy"].startswith(
        "pip uninstall pynvml, then pip install --force-reinstall 'nvidia-ml-py"
    )


def test_without_the_capability_clocks_cannot_be_locked(stub: Stub) -> None:
    drop = ("setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin")
    if not shutil.which("setpriv") or subprocess.run([*drop, "true"], capture_output=True).returncode:
        pytest.skip("setpriv (util-linux) cannot drop a capability here")
    found = gpu(stub, before=drop).one("GPU permission", "fail")
    assert "this user has no CAP_SYS_ADMIN" in found["text"] and "AmbientCapabilities" in found["remedy"]


def test_what_the_driver_refused_a_running_agent_is_told(stub: Stub) -> None:
    stub.gpu.no_permission = 1
    address, metrics = (f"127.0.0.1:{port}" for port in free_ports(2))
    command = [*CLI, "edge-agent", "--backend", "nvml", "--address", address, "--metrics", metrics]
    agent = subprocess.Popen(command, env=stub.environment(), stderr=subprocess.DEVNULL)
    try:
        end = time.monotonic() + PATIENCE_S
        while not refused(metrics):
            assert time.monotonic() < end and agent.poll() is None
            time.sleep(0.1)
        report = doctor_process(
            *("--role", "edge", "--address", address, "--metrics", metrics), environment=stub.environment()
        )
    finally:
        agent.send_signal(signal.SIGTERM)
        agent.wait(PATIENCE_S)
    found = report.one("GPU permission", "fail")
    assert re.search(r"has refused \d+ calls|no CAP_SYS_ADMIN", found["text"])
    assert f"pid {agent.pid} (" in report.one("port --address", "ok")["text"]


def refused(metrics: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{metrics}/metrics", timeout=5) as page:
            return b'prbandit_agent_errors_total{error="no_permission"} 1.0' in page.read()
    except OSError:
        return False


# ---- OAI module ------------------------------------------------------------------------------------------


def module(path: Path) -> Report:
    return doctor("--role", "gnb", "--module", path)


def test_a_library_that_loads_is_well_and_one_that_does_not_is_told(tmp_path: Path) -> None:
    assert "can be loaded" in module(Path(_ctypes.__file__)).one("OAI module", "ok")["text"]
    (tmp_path / "bad.so").write_bytes(b"no library")
    assert "cannot be loaded" in module(tmp_path / "bad.so").one("OAI module", "fail")["text"]
    assert "no such file" in module(tmp_path / "none.so").one("OAI module", "fail")["text"]


def test_a_folder_that_is_no_tree_of_oai_is_told(tmp_path: Path) -> None:
    assert "no OpenAirInterface tree" in doctor("--oai", tmp_path).one("OAI tree", "fail")["text"]


# ---- limits ----------------------------------------------------------------------------------------------


def test_limits_that_are_too_low_are_told() -> None:
    limits = {"RLIMIT_NOFILE": (256, 256)}
    command = python(["-m", "controller.cli", "doctor", "--role", "gnb", "--json"], limits)
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert '"256 open files at most' in done.stdout and "LimitNOFILE" in done.stdout


def test_an_address_space_that_is_too_small_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1 << 29, 1 << 29))
    assert "512 MiB, 1024 MiB are needed" in doctor("--role", "gnb").one("limits", "fail")["text"]
