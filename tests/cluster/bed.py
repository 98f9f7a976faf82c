"""Three hosts and a laptop on one machine, each with a network, processes, a name, a disk and an sshd of its own.

    with Bed() as bed:                                       # or the fixture `bed` of tests/cluster/conftest.py
        (bed.laptop.home / "cluster.yaml").write_text(...)   # homes are real folders, seen from outside
        ended = bed.laptop.run("rayrnn", "up", "cluster.yaml", "--yes")
        bed.shape(SLOW)                                      # FAST, SLOW, LOSSY, or a Link of your own
        first, second, third = bed.hosts                     # 192.0.2.10, .11, .12, as in the shipped cluster.yaml
        second.kill(); second.start()                        # the power goes; it comes back with its disk
        second.freeze(); second.thaw()                       # every process stands still, the kernel answers pings
        second.cut(); second.mend()                          # the cable is pulled

Commands run in `laptop.home` (`host.home`), with the checkout's .venv first on PATH on the laptop. Hosts and laptop see
the machine's files read-only; of their own they have HOME (the same path everywhere), the system's temporary folder,
shared memory and /run. The user is `ubuntu`, and may do what root may. The hosts' `python3` has what the
checkout's .venv has except rayrnn; `Bed(with_rayrnn=True)` has that too. No host reaches anything outside of the bed.

Everything is a descendant of one process, whose death (with pytest's, however that comes) ends it all.
"""

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

from tests.cluster.disk import ROOT, make_disk, make_known_hosts, make_packages

#: the system's folder for files that a restart leaves alone: it hides nothing a host must see
PLACE = Path("/var/tmp")
USER = "ubuntu"
ISOLATED = ("--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "--mount-proc")
PATIENCE = 30.0


@dataclass(frozen=True)
class Link:
    """What lies between each host and the switch.

    Args:
        rate: in tc's words, each way.
        delay: seconds that whatever a host sends takes longer; a ping between two hosts takes twice that.
        loss: the fraction of a host's packets that is lost.
    """

    rate: str = "1gbit"
    delay: float = 0.0
    loss: float = 0.0


FAST = Link()
SLOW = Link(rate="100mbit", delay=0.010)
LOSSY = Link(loss=0.01)


class Host:
    """One computer of the bed; `bed.hosts` and `bed.laptop` hold them."""

    def __init__(self, bed: "Bed", name: str, address: str) -> None:
        self.name = name
        self.address = address
        self.disk = bed.folder / "hosts" / name
        #: the user's home, as it is seen from outside
        self.home = self.disk / "home"
        #: the system's temporary folder, Ray's logs among other things, as it is seen from outside
        self.tmp = self.disk / "tmp"
        #: /etc/hosts; write to it in place
        self.names = self.disk / "etc" / "hosts"
        self._bed = bed
        self._process: subprocess.Popen[bytes] | None = None
        self._init = 0
        self.port = f"port-{address.rpartition('.')[2]}"
        self.mac = "02:00:" + ":".join(f"{int(part):02x}" for part in address.split("."))

    @property
    def is_alive(self) -> bool:
        """Whether its sshd, and with it the host, lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Switch it on."""
        assert not self.is_alive, f"{self.name} is on already"
        for left in (*self.tmp.iterdir(), *(self.disk / "run").iterdir()):
            shutil.rmtree(left) if left.is_dir() and not left.is_symlink() else left.unlink()
        script = str(ROOT / "tests" / "cluster" / "host.sh")
        # unshare complains when the host is killed; the host's own words go to sshd.log
        quiet = {"stderr": subprocess.DEVNULL}
        self._process = self._bed.spawn("unshare", *ISOLATED, "sh", script, *self._bed.places(self), **quiet)
        self._init = self._wait_for_init()
        self._plug_in()
        self._wait_for_sshd()

    def kill(self) -> None:
        """Cut its power: every process of it is gone at once."""
        assert self._process is not None
        with suppress(ProcessLookupError):
            os.kill(self._init, signal.SIGKILL)
        self._process.wait(PATIENCE)

    def freeze(self) -> None:
        """Stop every process of it where it is."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let them go on."""
        self._signal(signal.SIGCONT)

    def cut(self) -> None:
        """Pull its network cable."""
        self._bed.switch("ip", "link", "set", self.port, "down")

    def mend(self) -> None:
        """Plug the cable in again."""
        self._bed.switch("ip", "link", "set", self.port, "up")

    def replace(self, path: Path, text: str) -> None:
        """Have this host, and no other, read another text in the place of a file; `restore` ends that."""
        other = self.tmp / f"instead-of-{path.name}"
        other.write_text(text)
        inside = ("nsenter", "--target", str(self._init), "--mount", "--")
        subprocess.run([*inside, "mount", "--bind", f"/tmp/{other.name}", str(path)], check=True)

    def restore(self, path: Path) -> None:
        """Have it read the file itself again."""
        subprocess.run(["nsenter", "--target", str(self._init), "--all", "--", "umount", str(path)], check=True)
        (self.tmp / f"instead-of-{path.name}").unlink()

    def popen(
        self,
        *command: str,
        folder: str | None = None,
        environment: Mapping[str, str] | None = None,
        **options: object,
    ) -> "subprocess.Popen[str]":
        """Start a command as the user at this host; text streams, `options` as for subprocess.Popen."""
        settings = self._bed.variables(self) | dict(environment or {})
        words = [f"{name}={value}" for name, value in settings.items()]
        inside = ("sh", "-c", 'cd "$1" && shift && exec env -i "$@"', "sh", folder or str(self._bed.home))
        entering = ("nsenter", "--target", str(self._init), "--all", "--")
        return subprocess.Popen([*entering, *inside, *words, *command], text=True, **options)  # type: ignore[call-overload,no-any-return]

    def run(
        self,
        *command: str,
        timeout: float = 300,
        folder: str | None = None,
        environment: Mapping[str, str] | None = None,
        input: str = "",
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as the user at this host to its end, or kill it and raise subprocess.TimeoutExpired."""
        pipe = subprocess.PIPE
        options = {"stdin": pipe, "stdout": pipe, "stderr": pipe}
        with self.popen(*command, folder=folder, environment=environment, **options) as process:
            try:
                out, errors = process.communicate(input, timeout=timeout)
            except BaseException:
                _kill(process)
                raise
        return subprocess.CompletedProcess(command, process.returncode, out, errors)

    def processes(self) -> list[psutil.Process]:
        """What runs there beside sshd."""
        found = []
        for pid in self._pids():
            with suppress(psutil.Error):
                process = psutil.Process(pid)
                if process.name() != "sshd" and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def listening(self) -> set[tuple[str, int]]:
        """Addresses and ports (TCP) on which somebody listens there; sshd does on 22."""
        found = set()
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/{self._init}/net/{table}").read_text().splitlines()[1:]:
                words = line.split()
                if words[3] == "0A":
                    address, _, port = words[1].partition(":")
                    found.add((_readable(address), int(port, 16)))
        return found

    def _pids(self) -> list[int]:
        mine = os.readlink(f"/proc/{self._init}/ns/pid")
        found = []
        for pid in psutil.pids():
            with suppress(OSError):
                if os.readlink(f"/proc/{pid}/ns/pid") == mine:
                    found.append(pid)
        return found

    def _signal(self, number: signal.Signals) -> None:
        for _ in range(2):  # a process may be born between look and signal
            for pid in self._pids():
                with suppress(ProcessLookupError):
                    os.kill(pid, number)

    def _wait_for_init(self) -> int:
        """The number, out here, of the process that is the first one in there."""
        assert self._process is not None
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self.is_alive:
            with suppress(psutil.Error):
                for child in psutil.Process(self._process.pid).children(recursive=True):
                    numbers = Path(f"/proc/{child.pid}/status").read_text().partition("NSpid:")[2].split("\n")[0]
                    if numbers.split()[-1] == "1":
                        return child.pid
            time.sleep(0.01)
        raise AssertionError(f"host {self.name} did not start")

    def _plug_in(self) -> None:
        """A cable from the host to the switch."""
        pair = ("type", "veth", "peer", "name", "eth0", "netns", str(self._init), "address", self.mac)
        with suppress(subprocess.CalledProcessError):  # the cable of a host that was killed goes a little later
            self._bed.switch("ip", "link", "delete", self.port)
        self._bed.switch("ip", "link", "add", self.port, *pair)
        self._bed.switch("ip", "link", "set", self.port, "master", "switch", "up")
        inside = ("nsenter", "--target", str(self._init), "--net", "--")
        for command in (
            ("ip", "link", "set", "lo", "up"),
            ("ip", "address", "add", f"{self.address}/24", "dev", "eth0"),
            ("ip", "link", "set", "eth0", "up"),
        ):
            subprocess.run([*inside, *command], check=True)
        self._bed.shape_host(self)

    def tc(self, *words: str) -> None:
        """Run tc at the host's own end of the cable."""
        subprocess.run(["nsenter", "--target", str(self._init), "--net", "--", "tc", *words], check=True)

    def _wait_for_sshd(self) -> None:
        deadline = time.monotonic() + PATIENCE
        while ("0.0.0.0", 22) not in self.listening():
            log = self.disk / "run" / "sshd.log"
            assert self.is_alive, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.02)


class Bed:
    """A laptop and three hosts on one switch."""

    def __init__(self, *, with_rayrnn: bool = False) -> None:
        _sweep()
        self.folder = Path(tempfile.mkdtemp(prefix="rayrnn-bed-", dir=PLACE))
        self._lock = (self.folder / "lock").open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        #: every user's home, as it is seen from inside
        self.home = self.folder / "home"
        self.link = FAST
        self._wire: subprocess.Popen[bytes] | None = None
        self.laptop = Host(self, "laptop", "192.0.2.2")
        names = ("alder", "birch", "cedar")
        self.hosts = [Host(self, name, f"192.0.2.{number}") for number, name in enumerate(names, start=10)]
        self.modules, self._with_rayrnn = os.environ.get("PYTHONPATH", ""), with_rayrnn
        make_packages(self.folder, with_rayrnn=with_rayrnn)
        addresses = {host.name: host.address for host in (self.laptop, *self.hosts)}
        for name in addresses:
            make_disk(self.folder, name, addresses, modules=self.modules if with_rayrnn else "")
        make_known_hosts(self.folder, addresses)
        self._top: subprocess.Popen[bytes] | None = None
        self._init = 0

    def __enter__(self) -> "Bed":
        try:
            self._start_switch()
            for host in (self.laptop, *self.hosts):
                host.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End everything that was ever started in it, and remove its disks."""
        if self._top is not None:
            with suppress(ProcessLookupError):
                os.kill(self._init or self._top.pid, signal.SIGKILL)
            self._top.wait(PATIENCE)
        for host in (self.laptop, *self.hosts):
            if host._process is not None:
                host._process.wait(PATIENCE)
        shutil.rmtree(self.folder)
        self._lock.close()

    @contextmanager
    def own_names_mean_loopback(self) -> Iterator[None]:
        """Inside, each host takes its own name for 127.0.1.1, as Debian's installer writes it."""
        for host in self.hosts:
            text = host.names.read_text()
            host.names.write_text(text.replace(f"{host.address} {host.name}", f"127.0.1.1 {host.name}"))
        try:
            yield
        finally:
            for host in self.hosts:
                host.names.write_text(self.laptop.names.read_text())

    def shape(self, link: Link) -> None:
        """Make the links of the three hosts such; the laptop's stays fast."""
        self.link = link
        if self._wire is not None:
            _kill(self._wire)
            self._wire = None
        taps = {host.port: host.port.replace("port", "tap") for host in self.hosts}
        if link.delay or link.loss:
            program = str(ROOT / "tests" / "cluster" / "wire.py")
            words = (sys.executable, "-I", program, str(link.delay), str(link.loss), *taps.values())
            self._wire = self.spawn(*words, stdout=subprocess.PIPE)
            assert self._wire.stdout is not None
            assert self._wire.stdout.readline() == b"ready\n"
            for tap in taps.values():
                quiet = ("learning", "off", "flood", "off", "mcast_flood", "off", "bcast_flood", "off")
                self.switch("ip", "link", "set", tap, "master", "switch", "up")
                self.switch("ip", "link", "set", tap, "type", "bridge_slave", *quiet)
        for host in self.hosts:
            if host.is_alive:
                self.shape_host(host)

    def shape_host(self, host: Host) -> None:
        """Put the link's rate, and the way over the wire where it has one, on a host's cable."""
        if host is self.laptop:
            return
        burst = "256kb" if self.link.rate.endswith("gbit") else "32kb"
        rate = ("root", "tbf", "rate", self.link.rate, "burst", burst, "latency", "50ms")
        host.tc("qdisc", "replace", "dev", "eth0", *rate)
        self.switch("tc", "qdisc", "replace", "dev", host.port, *rate)
        with suppress(subprocess.CalledProcessError):
            self.switch("tc", "qdisc", "delete", "dev", host.port, "ingress")
        if self._wire is not None:
            everything = ("protocol", "all", "u32", "match", "u32", "0", "0")
            redirect = ("action", "mirred", "egress", "redirect", "dev", host.port.replace("port", "tap"))
            self.switch("tc", "qdisc", "add", "dev", host.port, "ingress")
            self.switch("tc", "filter", "add", "dev", host.port, "ingress", *everything, *redirect)
            self.switch("bridge", "fdb", "replace", host.mac, "dev", host.port, "master", "static")

    def switch(self, *command: str) -> str:
        """Run a command where the hosts' cables come together."""
        inside = ("nsenter", "--target", str(self._init), "--net", "--")
        return subprocess.run([*inside, *command], check=True, capture_output=True, text=True).stdout

    def spawn(self, *command: str, **options: object) -> "subprocess.Popen[bytes]":
        """Start what ends with the bed."""
        inside = ("nsenter", "--target", str(self._init), "--all", "--")
        return subprocess.Popen([*inside, *command], stdin=subprocess.DEVNULL, **options)  # type: ignore[call-overload,no-any-return]

    def variables(self, host: Host) -> dict[str, str]:
        """The environment of a user who has just logged in."""
        programs = [f"{sys.base_prefix}/bin", "/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"]
        if host is self.laptop:
            programs.insert(0, str(Path(sys.executable).parent))
        return {
            "HOME": str(self.home),
            "USER": USER,
            "PATH": ":".join(programs),
            "LANG": "C.UTF-8",
            "COLUMNS": "100",
            "TERM": "xterm",
            # pytest may test another checkout than the one that is installed
            **({"PYTHONPATH": self.modules} if self.modules and (host is self.laptop or self._with_rayrnn) else {}),
        }

    def places(self, host: Host) -> list[str]:
        """What the first process of a host must know: the bed, its own name, where Python's packages belong."""
        base = {"base": sys.base_prefix, "platbase": sys.base_prefix}
        packages = [] if host is self.laptop else [sysconfig.get_path("purelib", vars=base)]
        return [str(self.folder), host.name, *packages]

    def _start_switch(self) -> None:
        # dies with the thread that started it, and so with pytest, however pytest dies
        mortal = ("setpriv", "--pdeathsig", "KILL")
        top = (*mortal, "unshare", *ISOLATED, *mortal, "sleep", "infinity")
        self._top = subprocess.Popen(top, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE
        while not (children := psutil.Process(self._top.pid).children()) or children[0].name() != "sleep":
            assert self._top.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        self._init = children[0].pid
        self.switch("ip", "link", "add", "switch", "type", "bridge")
        self.switch("ip", "link", "set", "switch", "up")


def _kill(process: "subprocess.Popen[Any]") -> None:
    """Kill the children of a process, which ends with them: it let a command into a host, and waits for it."""
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait(PATIENCE)


def _readable(address: str) -> str:
    """0A0200C0 as the kernel prints it -> 192.0.2.10; of IPv6, any address and v4 in disguise too."""
    if len(address) == 32:
        if address == "0" * 32:
            return "0.0.0.0"
        if not address.startswith("0000000000000000FFFF0000"):
            return address
        address = address[24:]
    return ".".join(str(byte) for byte in reversed(bytes.fromhex(address)))


def _sweep() -> None:
    """Remove the folders of beds whose pytest was killed."""
    for folder in PLACE.glob("rayrnn-bed-*"):
        with suppress(OSError), (folder / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
