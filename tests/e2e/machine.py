"""A booted systemd on this machine's /usr, read-only, in namespaces of its own (systemd-nspawn)."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from tests.e2e.harness import until

BOOT_S = 60.0


class Cgroup:
    """A cgroup below this process's, for a host where no systemd could give one."""

    def __init__(self, name: str) -> None:
        mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
        top = next((m[4] for m in mounts if m[m.index("-") + 1] == "cgroup2"), "")
        own = [x for x in Path("/proc/self/cgroup").read_text().splitlines() if x.startswith("0::")]
        if not (top and own):
            raise OSError("no cgroup2 is mounted here")
        self.folder = Path(top + own[0].removeprefix("0::").rstrip("/")) / name
        self.folder.mkdir()

    def close(self) -> None:
        for folder, _, _ in os.walk(self.folder, topdown=False):
            os.rmdir(folder)


class Machine:
    """/etc, /var and /opt hold what ``write`` put there; the network is loopback, the clock out of reach.

    Raises OSError where a command in it fails. ``close`` leaves nothing behind but its folder.
    """

    def __init__(self, folder: Path) -> None:
        self.name = f"prbandit-{secrets.token_hex(4)}"
        self.folder, self.root = folder, folder / "root"
        self._children: dict[str, subprocess.Popen[bytes]] = {}
        self._cgroup: Cgroup | None = None
        for name in ("etc", "opt", "usr", "var", "run", "tmp", "proc", "sys", "dev", "root"):
            (self.root / name).mkdir(parents=True)
        for name in ("bin", "sbin", "lib", "lib64"):
            (self.root / name).symlink_to(f"usr/{name}")
        shutil.copy("/etc/os-release", self.root / "etc")
        self.write("/etc/machine-id", secrets.token_hex(16) + "\n")  # without one everything would be enabled
        self.write("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
        self.write("/etc/group", "root:x:0:\n")
        self.write("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n")
        for name in ("etc", "var"):
            self.write(f"/{name}/.updated", "")

    def path(self, path: str) -> Path:
        """Where a path of the machine lies here."""
        return self.root / path.lstrip("/")

    def write(self, path: str, text: str, mode: int = 0o644) -> None:
        file = self.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)

    def boot(self, **binds: Path) -> None:
        """Boot; ``binds``: folders of this host by their name in /opt, read-only."""
        command = [
            "systemd-nspawn",
            "--quiet",
            "--boot",
            f"--directory={self.root}",
            f"--machine={self.name}",
        ]
        command += ["--private-network", "--drop-capability=CAP_SYS_TIME", "--console=pipe"]
        command += ["--resolv-conf=off", "--timezone=off", "--link-journal=no", "--bind-ro=/usr"]
        command += [f"--bind-ro={source}:/opt/{name}" for name, source in binds.items()]
        if not Path("/run/systemd/system").exists():
            self._cgroup = Cgroup(self.name)
            command += ["--register=no", "--keep-unit"]
            script = f'echo $$ >"{self._cgroup.folder}/cgroup.procs" && exec "$@"'
            command = ["sh", "-c", script, "sh", *command]
        self._spawn("console", [*command, "systemd.unit=basic.target"])
        until(lambda: self.systemctl("is-active", "basic.target"), "a booted systemd", BOOT_S)

    @property
    def leader(self) -> str:
        """The machine's PID 1 as this host counts it."""
        pid = self._children["console"].pid
        (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return child

    def _spawn(self, name: str, command: list[str]) -> None:
        with (self.folder / f"{name}.log").open("wb") as log:
            self._children[name] = subprocess.Popen(
                ["setpriv", "--pdeathsig", "TERM", *command],  # a killed test leaves no machine running
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
                start_new_session=True,
            )

    def beside(self, name: str, *command: str) -> None:
        """Start a command of this host in the machine's network; its log is ``name``.log."""
        self._spawn(name, ["nsenter", "-t", self.leader, "-n", "--", *command])

    def run(self, *command: str) -> str:
        """What a command in the machine prints, run as root."""
        inside = ["nsenter", "-t", self.leader, "-a", "--wd=/", "--", "env", "-i", "PATH=/usr/sbin:/usr/bin"]
        done = subprocess.run([*inside, *command], capture_output=True, text=True, timeout=60)
        if done.returncode:
            raise OSError(f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def systemctl(self, *arguments: str) -> str:
        return self.run("systemctl", *arguments)

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.systemctl("show", "--value", f"--property={name}", unit).strip()

    def journal(self, unit: str) -> str:
        return self.run("journalctl", f"--unit={unit}", "--no-pager", "--output=cat")

    def logs(self) -> str:
        files = {name: self.folder / f"{name}.log" for name in self._children}
        return "\n".join(f"== {name}\n{file.read_text(errors='replace')}" for name, file in files.items())

    def kill(self, unit: str) -> None:
        """SIGKILL to the unit's main process; waits until the unit is up again."""
        before, restarts = self.show(unit, "MainPID"), int(self.show(unit, "NRestarts"))
        self.systemctl("kill", "--signal=KILL", "--kill-whom=main", unit)
        until(lambda: int(self.show(unit, "NRestarts")) > restarts, f"a restart of {unit}")
        until(lambda: self.show(unit, "MainPID") not in ("0", before), f"{unit} up again")

    def close(self) -> None:
        leader = ""
        with suppress(OSError, KeyError, ValueError):
            leader = self.leader
        for child in reversed(self._children.values()):
            child.terminate()
            try:
                child.wait(20)
            except subprocess.TimeoutExpired:
                if child is self._children["console"] and leader:
                    os.kill(int(leader), signal.SIGKILL)
                else:
                    child.kill()
                child.wait(20)
        with suppress(OSError):
            Path("/run/systemd/nspawn/propagate", self.name).rmdir()
        if self._cgroup:
            self._cgroup.close()


def main() -> None:
    """Boot one and end it: can this be done here?"""
    with tempfile.TemporaryDirectory() as folder:
        machine = Machine(Path(folder))
        try:
            machine.boot()
        finally:
            machine.close()


if __name__ == "__main__":
    main()
