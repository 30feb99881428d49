"""The NVML backend through the real ``pynvml`` and the stub ``libnvidia-ml.so.1``, in this process."""

from __future__ import annotations

import ast
import ctypes
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest

from agents.gpu import keeper as keeper_module
from agents.gpu import nvml
from agents.gpu.device import (
    ClockNotReached,
    ClockNotSupported,
    DriverChanged,
    GpuError,
    GpuHangs,
    GpuLost,
    NoDriver,
    NoPermission,
    NoSuchGpu,
    supported_clock,
)
from agents.gpu.keeper import ClockKeeper, Held, release_clocks
from agents.gpu.nvml import NvmlGpu, find_gpus, open_some
from tests.agents.gpu import stub as stub_module
from tests.agents.gpu.stub import GPUS, SUPPORTED_MHZ, Hangs, Stub, Unsupported

pynvml = pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")


@pytest.fixture(scope="session")
def library() -> None:
    """The stub, loaded before pynvml looks for a library of its name."""
    try:
        folder = stub_module.build()
    except stub_module.NoCompiler as missing:
        pytest.skip(str(missing))
    ctypes.CDLL(str(folder / stub_module.LIBRARY), mode=ctypes.RTLD_GLOBAL)


@pytest.fixture
def stub(library: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stub:
    """One GPU under half load; no test touches another driver's."""
    stub = Stub(tmp_path / "gpus")
    monkeypatch.setenv(stub_module.STATE, str(stub.path))
    pynvml.nvmlInit()
    try:
        assert pynvml.nvmlSystemGetDriverVersion() == "stub"
    finally:
        pynvml.nvmlShutdown()
    monkeypatch.setattr(nvml, "RESTART_S", 0.0)
    return stub


Opening = Callable[..., tuple[NvmlGpu, ...]]


@pytest.fixture
def opening(stub: Stub) -> Iterator[Opening]:
    """The GPUs of ``open_some``, closed however a test ends: NVML would keep to this test's stub."""
    with ExitStack() as closing:

        def opening(*gpus: str) -> tuple[NvmlGpu, ...]:
            devices = tuple(open_some(gpus)[0])
            for device in devices:
                closing.callback(device.close)
            return devices

        yield opening


@pytest.fixture
def gpu(opening: Opening) -> NvmlGpu:
    (device,) = opening()
    return device


def settled(device: NvmlGpu, mhz: int) -> None:
    end = time.monotonic() + 30.0
    while device.sm_mhz() != mhz:
        assert time.monotonic() < end, f"{device.sm_mhz()} MHz"
        time.sleep(0.002)


# ---- identity and clocks ---------------------------------------------------------------------------------


def test_a_gpu_says_who_it_is_and_which_clocks_it_has(gpu: NvmlGpu) -> None:
    assert gpu.info.uuid == GPUS[0] and gpu.info.name == "NVIDIA GeForce GTX 1650"
    assert gpu.info.backend == "nvml"
    assert gpu.info.supported_sm_mhz == SUPPORTED_MHZ
    assert gpu.info.default_sm_mhz == 2100


def test_an_idle_gpu_lists_the_clocks_that_it_has_under_load(stub: Stub, opening: Opening) -> None:
    """Its memory clock is then 405 MHz, for which NVML lists nothing above 645 MHz."""
    stub.gpu.load_percent = 0
    (device,) = opening()
    assert device.read().memory_mhz == 405
    assert device.info.supported_sm_mhz == SUPPORTED_MHZ


def test_an_applications_memory_clock_says_which_list_holds(stub: Stub, opening: Opening) -> None:
    stub.gpu.applications_memory_mhz = 405
    (device,) = opening()
    assert device.info.supported_sm_mhz[-1] == 645


def test_a_wish_is_rounded_up_before_the_driver_could_round_it_down(stub: Stub, gpu: NvmlGpu) -> None:
    held = ClockKeeper([gpu]).lock("", "cell", 1001, 10.0)
    assert (held.locked_mhz, held.sm_mhz, held.reached) == (1005, 1005, True)
    assert stub.gpu.locked_mhz == 1005 == supported_clock(gpu.info, 1001)


def test_a_clock_between_two_supported_ones_is_not_passed_on(stub: Stub, gpu: NvmlGpu) -> None:
    with pytest.raises(ClockNotSupported, match="1001 MHz"):
        gpu.lock(1001)
    assert stub.gpu.locks == 0


def test_a_clock_that_lags_is_waited_for(stub: Stub, gpu: NvmlGpu) -> None:
    stub.gpu.lag_ms = 60_000
    gpu.lock(600)
    assert gpu.sm_mhz() == stub_module.BOOST_MHZ
    stub.gpu.lag_ms = 60
    held = ClockKeeper([gpu], reach_s=30.0).lock("", "cell", 900, 60.0)
    assert held.reached and held.sm_mhz == 900


@pytest.mark.parametrize("fault", ["stuck", "thermal"])
def test_a_clock_that_does_not_come_is_a_named_error_with_its_reason(
    stub: Stub, gpu: NvmlGpu, fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    gpu.lock(600)
    settled(gpu, 600)
    if fault == "stuck":
        stub.gpu.stuck = 1
    else:
        stub.gpu.ceiling_mhz = 600
    keeper = ClockKeeper([gpu], reach_s=0.05)
    with caplog.at_level(logging.ERROR):
        held = keeper.lock("", "cell", 1500, 10.0)
    assert (held.locked_mhz, held.sm_mhz, held.reached) == (1500, 600, False)
    assert keeper.counters[f"errors_{ClockNotReached.name}"] == 1
    (told,) = [r.getMessage() for r in caplog.records if "clock_not_reached" in r.getMessage()]
    assert "clock_not_reached: locked to 1500 MHz, 600 MHz read back" in told
    assert ("sw_thermal_slowdown" in told) is (fault == "thermal")


def reached(held: Held) -> tuple[int, int, bool]:
    return held.locked_mhz, held.sm_mhz, held.reached


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_gpu_that_takes_a_clock_below_its_lock_is_locked_so_much_higher(
    stub: Stub, gpu: NvmlGpu, steps: int
) -> None:
    """As one does whose voltage curve has moved with the temperature, or whose driver rounds down."""
    stub.gpu.offset_mhz = -15 * steps
    keeper = ClockKeeper([gpu], reach_s=0.05)
    assert reached(keeper.lock("", "cell", 1001, 60.0)) == (1005 + 15 * steps, 1005, True)
    before = stub.gpu.locks
    assert reached(keeper.lock("", "cell", 600, 60.0)) == (600 + 15 * steps, 600, True)
    assert stub.gpu.locks == before + 1, "what the GPU falls short by is known"
    assert keeper.counters["errors_clock_not_reached"] == 0
    stub.gpu.offset_mhz = 0  # it falls short no more: one step above is as good, several are too much
    more = 15 if steps == 1 else 0
    assert reached(keeper.lock("", "cell", 900, 60.0)) == (900 + more, 900 + more, True)
    assert reached(keeper.lock("", "cell", 1200, 60.0)) == (1200, 1200, True)


def test_a_gpu_that_takes_a_clock_one_step_above_its_lock_has_reached_it(stub: Stub, gpu: NvmlGpu) -> None:
    stub.gpu.offset_mhz = 15
    keeper = ClockKeeper([gpu], reach_s=0.05)
    assert reached(keeper.lock("", "cell", 900, 60.0)) == (900, 915, True)
    assert reached(keeper.lock("", "cell", 2100, 60.0)) == (2100, 2115, True)
    stub.gpu.offset_mhz = 30
    assert reached(keeper.lock("", "cell", 1200, 60.0)) == (1200, 1230, False)


@pytest.mark.parametrize(("offset", "is_reached"), [(-15, True), (-30, False)])
def test_above_the_highest_clock_there_is_none_to_lock(
    stub: Stub, gpu: NvmlGpu, offset: int, is_reached: bool
) -> None:
    stub.gpu.offset_mhz = offset
    keeper = ClockKeeper([gpu], reach_s=0.05)
    assert reached(keeper.lock("", "cell", 2100, 60.0)) == (2100, 2100 + offset, is_reached)
    assert reached(keeper.lock("", "cell", 3000, 60.0)) == (2100, 2100 + offset, is_reached)


@pytest.mark.parametrize(("ceiling", "is_reached"), [(990, True), (975, False)])
def test_what_holds_a_clock_down_is_not_outbid(
    stub: Stub, gpu: NvmlGpu, ceiling: int, is_reached: bool
) -> None:
    stub.gpu.ceiling_mhz = ceiling
    keeper = ClockKeeper([gpu], reach_s=0.05)
    assert reached(keeper.lock("", "cell", 1005, 60.0)) == (1005, ceiling, is_reached)
    assert keeper.counters["errors_clock_not_reached"] == (not is_reached)


def test_more_than_the_lock_is_taken_back_where_it_was_in_vain(stub: Stub, gpu: NvmlGpu) -> None:
    stub.gpu.vain = 960
    keeper = ClockKeeper([gpu], reach_s=0.05)
    assert reached(keeper.lock("", "cell", 1005, 60.0)) == (1005, 960, False)
    assert stub.gpu.locked_mhz == 1005 and stub.gpu.locks == 3
    assert reached(keeper.lock("", "cell", 1005, 60.0)) == (1005, 960, False)
    assert stub.gpu.locks == 4, "a renewal does not try again"


def test_a_gpu_that_sleeps_for_want_of_work_holds_its_clock(stub: Stub, gpu: NvmlGpu) -> None:
    stub.gpu.load_percent, stub.gpu.idle_drops = 0, 1
    keeper = ClockKeeper([gpu], reach_s=0.05)
    assert reached(keeper.lock("", "cell", 1500, 60.0)) == (1500, 300, True)
    stub.gpu.more_reasons = 0x4  # its power cap as well
    assert reached(keeper.lock("", "cell", 1500, 60.0)) == (1500, 300, False)


# ---- state -----------------------------------------------------------------------------------------------


def test_the_state_is_what_the_hardware_says(stub: Stub, gpu: NvmlGpu) -> None:
    gpu.lock(1200)
    start = time.monotonic()
    first = gpu.read()
    time.sleep(0.05)
    second = gpu.read()
    most_s = time.monotonic() - start
    watts = (stub.gpu.idle_mw + stub.gpu.uw_per_mhz * 1200 * 0.5 / 1e3) / 1e3
    assert (second.sm_mhz, second.memory_mhz) == (1200, 4001)
    assert second.power_w == pytest.approx(watts, abs=0.001)
    assert second.utilisation == 0.5 and second.temperature_c == 42
    assert second.clock_event_reasons == ("applications_clocks_setting",)
    assert first.energy_j is not None and second.energy_j is not None
    assert 0.9 * watts * 0.05 < second.energy_j - first.energy_j < 1.1 * watts * most_s


def test_energy_and_its_time_are_read_together(
    stub: Stub, gpu: NvmlGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As far as the other threads of the process let them: here one comes between at the first attempt."""
    ns = iter((1_000_000_000, 1_050_000_000, 1_060_000_000, 1_060_000_100))
    monkeypatch.setattr(nvml, "time", SimpleNamespace(monotonic=time.monotonic, monotonic_ns=ns.__next__))
    assert gpu.read().mono_ns == 1_060_000_050


def test_every_reason_bit_of_nvml_has_its_name() -> None:
    bits = {
        value
        for name, value in vars(pynvml).items()
        if name.startswith("nvmlClocksEventReason") and isinstance(value, int) and value.bit_count() == 1
    }
    assert set(nvml.REASONS) == bits


FIELDS = {
    Unsupported.SM_CLOCK: "sm_mhz",
    Unsupported.MEMORY_CLOCK: "memory_mhz",
    Unsupported.POWER: "power_w",
    Unsupported.ENERGY: "energy_j",
    Unsupported.UTILISATION: "utilisation",
    Unsupported.TEMPERATURE: "temperature_c",
}


@pytest.mark.parametrize("bit", FIELDS, ids=FIELDS.get)
def test_a_field_that_this_gpu_lacks_is_a_gap_and_the_others_stay(
    stub: Stub, gpu: NvmlGpu, bit: Unsupported
) -> None:
    stub.gpu.unsupported = bit
    reading = gpu.read()
    assert [f for f in FIELDS.values() if getattr(reading, f) is None] == [FIELDS[bit]]


def test_a_gap_is_told_once(stub: Stub, gpu: NvmlGpu, caplog: pytest.LogCaptureFixture) -> None:
    stub.gpu.unsupported = Unsupported.POWER
    with caplog.at_level(logging.INFO):
        gpu.read(), gpu.read()
    assert [r.getMessage() for r in caplog.records] == [
        f"gpu {GPUS[0]}: nvmlDeviceGetPowerUsage: Not Supported"
    ]


def test_a_gpu_that_answers_nothing_can_be_watched_and_not_locked(stub: Stub, opening: Opening) -> None:
    """As a MIG device does: every field is a gap."""
    stub.gpu.unsupported = Unsupported.ALL
    (device,) = opening()
    assert device.info.supported_sm_mhz == ()
    reading = device.read()
    assert [getattr(reading, f) for f in FIELDS.values()] == [None] * len(FIELDS)
    assert reading.clock_event_reasons == ()
    keeper = ClockKeeper([device])
    with pytest.raises(ClockNotSupported, match="no clock to lock"):
        keeper.lock("", "cell", 1000, 10.0)
    assert keeper.counters["errors_clock_not_supported"] == 1
    assert release_clocks([device]) == {}


def test_a_clock_that_cannot_be_read_back_is_not_said_to_be_reached(stub: Stub, gpu: NvmlGpu) -> None:
    stub.gpu.unsupported = Unsupported.SM_CLOCK
    keeper = ClockKeeper([gpu], reach_s=0.0)
    held = keeper.lock("", "cell", 900, 10.0)
    assert (held.locked_mhz, held.sm_mhz, held.reached) == (900, 0, False)
    assert keeper.counters["errors_clock_not_reached"] == 1


# ---- errors ----------------------------------------------------------------------------------------------


def test_without_permission_the_state_is_read_and_no_clock_is_locked(stub: Stub, gpu: NvmlGpu) -> None:
    stub.gpu.no_permission = 1
    keeper = ClockKeeper([gpu])
    with pytest.raises(NoPermission, match=f"{GPUS[0]}.*1005 MHz.*Insufficient Permissions"):
        keeper.lock("", "cell", 1000, 10.0)
    assert keeper.counters["errors_no_permission"] == 1
    assert keeper.read("")[1].sm_mhz == stub_module.BOOST_MHZ
    assert isinstance(release_clocks([gpu])[GPUS[0]], NoPermission)


def test_an_argument_that_the_driver_refuses_is_no_release(stub: Stub, gpu: NvmlGpu) -> None:
    gpu.lock(900)
    stub.gpu.error = stub_module.INVALID_ARGUMENT
    with pytest.raises(ClockNotSupported, match="Invalid Argument"):
        gpu.lock(1200)
    with pytest.raises(GpuError, match="Invalid Argument"):
        gpu.unlock()
    assert stub.gpu.locked_mhz == 900


@pytest.mark.parametrize("code", [stub_module.GPU_IS_LOST, stub_module.RESET_REQUIRED])
def test_a_lost_gpu_is_a_named_error_and_is_found_again_when_it_is_back(
    stub: Stub, gpu: NvmlGpu, code: int
) -> None:
    keeper = ClockKeeper([gpu])
    keeper.lock("", "cell", 900, 60.0)
    stub.gpu.error = code
    with pytest.raises(GpuLost):
        keeper.read("")
    with pytest.raises(GpuLost):
        keeper.lock("", "cell", 900, 60.0)
    assert keeper.counters["errors_gpu_lost"] == 2
    stub.gpu.error, stub.gpu.locked_mhz = 0, 0  # a reset has put it back to its default clocks
    held = keeper.lock("", "cell", 900, 60.0)
    assert held.reached and stub.gpu.locked_mhz == 900


def test_nvml_is_opened_anew_ever_more_seldom_for_a_gpu_that_stays_lost(
    stub: Stub, opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000.0]
    monkeypatch.setattr(nvml, "RESTART_S", 1.0)
    fake = SimpleNamespace(monotonic=lambda: now[0], monotonic_ns=time.monotonic_ns)
    monkeypatch.setattr(nvml, "time", fake)
    (device,) = opening()
    inits = stub.state.inits
    stub.gpu.error = stub_module.GPU_IS_LOST
    opened = []
    for second in range(130):
        with pytest.raises(GpuError):
            device.read()
        if stub.state.inits != inits:
            inits = stub.state.inits
            opened.append(second)
        now[0] += 1.0
    assert [b - a for a, b in pairwise([0, *opened])] == [1, 2, 4, 8, 16, 32, 60]


def test_an_unknown_error_of_one_field_is_a_gap_and_of_a_lock_an_error(stub: Stub, gpu: NvmlGpu) -> None:
    stub.gpu.unknown = Unsupported.POWER
    reading = gpu.read()
    assert reading.power_w is None and reading.sm_mhz == stub_module.BOOST_MHZ
    gpu.probe()
    stub.gpu.error = stub_module.UNKNOWN
    for call in (gpu.read, gpu.probe):
        with pytest.raises(GpuError, match="Unknown Error"):
            call()
    with pytest.raises(GpuError, match="Unknown Error") as caught:
        gpu.lock(900)
    assert caught.value.name == "unknown"


@pytest.mark.parametrize(
    ("code", "error", "text"),
    [
        (stub_module.DRIVER_NOT_LOADED, NoDriver, "Driver Not Loaded"),
        (stub_module.VERSION_MISMATCH, DriverChanged, "mismatch .*the driver was changed"),
        (stub_module.FUNCTION_NOT_FOUND, NoDriver, "Function Not Found"),
        (stub_module.UNKNOWN, NoDriver, "Unknown Error"),
    ],
)
def test_no_driver_is_a_named_error(stub: Stub, code: int, error: type[GpuError], text: str) -> None:
    stub.state.init_error = code
    with pytest.raises(NoDriver, match=f"^NVML: .*{text}") as caught:
        open_some()
    assert type(caught.value) is error


# ---- calls that do not return -----------------------------------------------------------------------------


def hangs(stub: Stub, monkeypatch: pytest.MonkeyPatch, call: Hangs) -> None:
    monkeypatch.setattr(nvml, "OPEN_S", 0.2)
    monkeypatch.setattr(nvml, "CLOSE_S", 0.2)
    stub.state.hangs = call


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30.0
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.parametrize(("call", "name"), [(Hangs.INIT, "nvmlInit"), (Hangs.COUNT, "nvmlDeviceGetCount")])
def test_a_call_about_no_gpu_is_given_up_when_it_hangs(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, call: Hangs, name: str
) -> None:
    hangs(stub, monkeypatch, call)
    before = threading.active_count()
    try:
        with pytest.raises(GpuHangs, match=f"NVML: {name} has not returned for 0.2 s"):
            open_some()
    finally:
        stub.state.hangs = 0
    until(lambda: threading.active_count() < before + 1)
    if call is Hangs.INIT:  # which came late, and nobody wanted it any more
        pynvml.nvmlShutdown()


def test_a_driver_that_is_not_given_back_is_told_and_hides_no_other_error(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    hangs(stub, monkeypatch, Hangs.SHUTDOWN)
    try:
        with pytest.raises(NoSuchGpu, match="GPU-unknown"):
            open_some(["GPU-unknown", GPUS[0]])
        assert "nvmlShutdown has not returned" in caplog.text
        (device,), _ = open_some()
        with pytest.raises(GpuHangs, match="nvmlShutdown"):
            device.close()
        (device,), _ = open_some()
        keeper = ClockKeeper([device])
        keeper.start()
        keeper.lock("", "cell", 900, 60.0)
        assert keeper.close(5.0) == (GPUS[0],), "an ordinary end might wait for it"
        assert stub.gpu.locked_mhz == 0
    finally:
        stub.state.hangs = 0


# ---- the module pynvml ------------------------------------------------------------------------------------


def test_every_name_of_pynvml_that_is_used_is_asked_for_at_the_start() -> None:
    tree = ast.parse(Path(nvml.__file__).read_text())
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value).split(".")[-1] == "api"
    }
    assert used and used <= set(nvml._NEEDED)
    assert nvml._REMEDIES.keys() <= nvml._KINDS.keys() <= set(nvml._NEEDED)


ALL = "".join(f"{name} = None\n" for name in nvml._NEEDED)


@pytest.mark.parametrize(
    ("files", "path", "text"),
    [
        ({"pynvml/__init__.py": "nvmlInit = None"}, "pynvml/__init__.py", "it lacks NVMLError and "),
        ({"pynvml.py": ALL.replace("NVML_CLOCK_SM = None\n", "")}, "pynvml.py", "it lacks NVML_CLOCK_SM:"),
        ({"pynvml.py": "from string import joinfields"}, "pynvml.py", "cannot be imported .ImportError"),
        ({"pynvml.py": "import no_such_module"}, "pynvml.py", "cannot be imported .ModuleNotFoundError"),
        ({"pynvml.py": "print 'Python 2'"}, "pynvml.py", "cannot be imported .SyntaxError"),
        ({"pynvml.py": "1 / 0"}, "pynvml.py", "cannot be imported .ZeroDivisionError"),
    ],
)
def test_another_pynvml_is_named_with_its_path_and_the_remedy(
    files: dict[str, str], path: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, source in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(source)
    monkeypatch.delitem(sys.modules, "pynvml")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        with pytest.raises(NoDriver, match=f"^{tmp_path / path} .*{text}") as caught:
            nvml.Nvml()
    finally:
        sys.modules.pop("pynvml", None)
    assert "pip uninstall pynvml, then pip install" in str(caught.value) and "\n" not in str(caught.value)


def test_without_pynvml_what_to_install_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(
        NoDriver, match=r"^a real GPU needs the package pynvml: .venv/bin/pip install -e '.\[nvml\]'$"
    ):
        nvml.Nvml()


# ---- a driver that goes ----------------------------------------------------------------------------------


def asked(keeper: ClockKeeper) -> GpuError | None:
    """What the keeper says when every GPU was asked."""
    for kept in keeper._kept.values():
        kept.probe()
    return keeper.given_up()


@pytest.mark.parametrize(
    "first", [stub_module.VERSION_MISMATCH, stub_module.GPU_IS_LOST, stub_module.UNINITIALIZED]
)
def test_a_driver_that_was_changed_is_given_up_at_once(stub: Stub, gpu: NvmlGpu, first: int) -> None:
    keeper = ClockKeeper([gpu])
    assert asked(keeper) is None
    stub.gpu.error, stub.state.init_error = first, stub_module.VERSION_MISMATCH
    asked(keeper)  # a GPU that is lost may come back, until NVML cannot be opened anew
    assert isinstance(asked(keeper), DriverChanged)


@pytest.mark.parametrize(
    "code",
    [
        stub_module.UNINITIALIZED,
        stub_module.DRIVER_NOT_LOADED,
        stub_module.GPU_IS_LOST,
        stub_module.RESET_REQUIRED,
        stub_module.UNKNOWN,
    ],
)
def test_gpus_that_stay_away_are_given_up(
    stub: Stub, gpu: NvmlGpu, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = ClockKeeper([gpu])
    stub.gpu.error = code
    assert asked(keeper) is None, "it may come back"
    monkeypatch.setattr(keeper_module, "GIVE_UP_S", 0.0)
    assert asked(keeper) is not None
    stub.gpu.error = 0
    assert asked(keeper) is None


@pytest.mark.parametrize("state", ["nothing reported", "no permission", "nothing to lock"])
def test_a_gpu_that_answers_is_not_given_up(
    stub: Stub, opening: Opening, state: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "GIVE_UP_S", 0.0)
    if state == "no permission":
        stub.gpu.no_permission = 1
    else:
        stub.gpu.unsupported = Unsupported.ALL if state == "nothing reported" else Unsupported.CLOCK_LIST
    keeper = ClockKeeper(opening())
    with pytest.raises(GpuError):
        keeper.lock("", "cell", 900, 60.0)
    assert asked(keeper) is None


def test_one_gpu_that_answers_is_reason_to_go_on(
    stub: Stub, opening: Opening, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "GIVE_UP_S", 0.0)
    stub.state.gpus = 2
    keeper = ClockKeeper(opening())
    stub.gpu.error = stub_module.GPU_IS_LOST
    assert asked(keeper) is None
    stub.state.gpu[1].error = stub_module.GPU_IS_LOST
    assert isinstance(asked(keeper), GpuLost)


def test_a_driver_that_goes_and_comes_back_is_used_again(stub: Stub, gpu: NvmlGpu) -> None:
    stub.gpu.error = stub_module.DRIVER_NOT_LOADED
    with pytest.raises(NoDriver):
        gpu.read()
    stub.state.init_error = stub_module.DRIVER_NOT_LOADED
    with pytest.raises(NoDriver):
        gpu.read()
    stub.gpu.error = stub.state.init_error = 0
    assert gpu.read().sm_mhz == stub_module.BOOST_MHZ


@pytest.mark.parametrize("name", ["GPU-unknown", "7", str(2**32)])
def test_a_gpu_that_is_not_there_is_named_with_those_that_are(stub: Stub, name: str) -> None:
    with pytest.raises(NoSuchGpu, match=f"GPU {name}: .*known: 0 {GPUS[0]}"):
        open_some([name])


def test_no_gpu_at_all(stub: Stub) -> None:
    stub.state.gpus = 0
    with pytest.raises(NoSuchGpu):
        open_some()


# ---- two GPUs --------------------------------------------------------------------------------------------


def test_gpus_are_chosen_by_uuid_and_by_index_and_each_once(stub: Stub, opening: Opening) -> None:
    stub.state.gpus = 2
    for names, uuids in (
        ((), GPUS),
        (("1",), GPUS[1:]),
        ((GPUS[1], "0"), (GPUS[1], GPUS[0])),
        ((GPUS[0], "0"), GPUS[:1]),
    ):
        assert tuple(d.info.uuid for d in opening(*names)) == uuids


def test_locks_of_two_gpus_do_not_touch_each_other(stub: Stub, opening: Opening) -> None:
    stub.state.gpus = 2
    keeper = ClockKeeper(opening())
    keeper.lock(GPUS[0], "cell", 600, 60.0)
    keeper.lock(GPUS[1], "cell", 1200, 60.0)
    assert [g.locked_mhz for g in stub.state.gpu] == [600, 1200]
    keeper.release(GPUS[0], "cell")
    assert [g.locked_mhz for g in stub.state.gpu] == [0, 1200]
    keeper.close()
    assert [g.locked_mhz for g in stub.state.gpu] == [0, 0]


@pytest.mark.parametrize("names", [(), (GPUS[1], GPUS[0]), ("0", "1")])
def test_one_lost_gpu_leaves_the_other_in_use_and_is_found_when_it_is_back(
    stub: Stub, names: tuple[str, ...]
) -> None:
    stub.state.gpus = 2
    stub.state.gpu[0].error = stub_module.GPU_IS_LOST
    (device,), (missing,) = open_some(names)
    try:
        assert device.info.uuid == GPUS[1]
        assert missing.name == (GPUS[0] if GPUS[0] in names else "0")
        assert isinstance(missing.error, GpuLost)
        with pytest.raises(GpuLost):
            missing.open()
        stub.state.gpu[0].error = 0
        found = missing.open()
        found.lock(900)
        assert [g.locked_mhz for g in stub.state.gpu] == [900, 0]
        assert device.sm_mhz() == stub_module.BOOST_MHZ
        found.close()
    finally:
        device.close()


@pytest.fixture
def one_answers(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The first of two GPUs hangs; it is given up when the other has answered, however long that took."""

    def wait(begun: list[futures.Future[object]], _timeout_s: float) -> object:
        return futures.wait(begun, return_when=futures.FIRST_COMPLETED)

    monkeypatch.setattr(nvml, "wait", wait)
    stub.state.gpus = 2
    stub.gpu.hang = 1
    yield
    stub.gpu.hang = 0


def test_a_gpu_that_hangs_while_it_is_opened_leaves_the_other_in_use_and_is_opened_late(
    stub: Stub, one_answers: None
) -> None:
    (device,), (missing,) = open_some()
    try:
        assert device.info.uuid == GPUS[1] and device.sm_mhz() == stub_module.BOOST_MHZ
        assert missing.name == "0" and isinstance(missing.error, GpuHangs)
        with futures.ThreadPoolExecutor() as pool:
            late = pool.submit(missing.open)
            device.lock(900)
            assert not late.done()
            stub.gpu.hang = 0
            found = late.result()
        assert found.info.uuid == GPUS[0]
        found.lock(600)
        assert [g.locked_mhz for g in stub.state.gpu] == [600, 900]
        found.close()
        again = missing.open()  # as every other missing GPU
        assert again is not found and again.info.uuid == GPUS[0]
        again.close()
    finally:
        device.close()


def test_a_gpu_that_hung_and_is_lost_then_is_tried_again(stub: Stub, one_answers: None) -> None:
    (device,), (missing,) = open_some([GPUS[0], GPUS[1]])
    try:
        assert missing.name == GPUS[0]
        stub.gpu.error = stub_module.GPU_IS_LOST
        stub.gpu.hang = 0
        with pytest.raises(GpuLost):
            missing.open()
        stub.gpu.error = 0
        found = missing.open()
        assert found.info.uuid == GPUS[0]
        found.close()
    finally:
        device.close()


def test_nvml_is_not_given_back_while_the_only_gpu_hangs(stub: Stub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvml, "OPEN_S", 0.1)
    stub.gpu.hang = 1
    opened, (missing,) = find_gpus()
    assert not opened and isinstance(missing.error, GpuHangs)
    assert pynvml.nvmlDeviceGetCount() == 1
    stub.gpu.hang = 0
    missing.open().close()
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        pynvml.nvmlDeviceGetCount()


def test_a_wrong_name_is_told_though_a_gpu_hangs(stub: Stub, one_answers: None) -> None:
    with pytest.raises(NoSuchGpu, match=f"GPU GPU-unknown: .*known: 1 {GPUS[1]}"):
        open_some(["GPU-unknown"])


def test_without_any_gpu_the_first_one_s_error_is_raised_and_nvml_given_back(stub: Stub) -> None:
    stub.gpu.error = stub_module.GPU_IS_LOST
    with pytest.raises(GpuLost):
        open_some()
    with pytest.raises(pynvml.NVMLError_Uninitialized):
        pynvml.nvmlDeviceGetCount()


def test_a_wrong_name_costs_a_release_no_other_gpu(stub: Stub) -> None:
    (device,), (missing,) = find_gpus(["GPU-unknown", GPUS[0]])
    device.close()
    assert missing.name == "GPU-unknown" and isinstance(missing.error, NoSuchGpu)


def test_release_goes_on_after_a_gpu_that_refuses(stub: Stub, opening: Opening) -> None:
    stub.state.gpus = 2
    devices = opening()
    for device in devices:
        device.lock(600)
    stub.state.gpu[0].no_permission = 1
    assert list(release_clocks(devices)) == [GPUS[0]]
    assert [g.locked_mhz for g in stub.state.gpu] == [600, 0]
