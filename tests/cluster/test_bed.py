"""The bed itself is what it says: hosts that share nothing, links of the named kind, and nothing left afterwards."""

import os
import subprocess
import sys
import textwrap

import psutil
import pytest

from tests.cluster.bed import LOSSY, PLACE, SLOW, Bed
from tests.cluster.disk import ROOT

SSH = ("ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no", "-o", "ConnectTimeout=2", "-o", "LogLevel=error")
#: seconds of one round trip, then bits a second of one stream, measured from inside a host
MEASURE = textwrap.dedent("""
    import socket, sys, time
    link = socket.create_connection((sys.argv[1], 5000))
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    times = []
    for _ in range(20):
        started = time.monotonic()
        link.sendall(b".")
        link.recv(1)
        times.append(time.monotonic() - started)
    started, size = time.monotonic(), int(sys.argv[2])
    link.sendall(b"x" * size)
    link.shutdown(socket.SHUT_WR)
    link.recv(1)
    print(sorted(times)[10], 8 * size / (time.monotonic() - started))
""")
ANSWER = textwrap.dedent("""
    import socket
    with socket.create_server(("0.0.0.0", 5000)) as server:
        print("ready", flush=True)
        link, _ = server.accept()
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(20):
            link.recv(1)
            link.sendall(b".")
        while link.recv(1 << 20):
            pass
        link.sendall(b".")
""")


def ssh(bed: Bed, address: str, *command: str) -> subprocess.CompletedProcess[str]:
    return bed.laptop.run(*SSH, f"ubuntu@{address}", *command, timeout=30)


def measure(bed: Bed, size: int) -> tuple[float, float]:
    """Seconds of a round trip and bits a second from the first host to the second."""
    first, second, _ = bed.hosts
    with second.popen("python3", "-c", ANSWER, stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        ended = first.run("python3", "-c", MEASURE, second.address, str(size), timeout=120)
    assert ended.returncode == 0, ended.stderr
    delay, rate = map(float, ended.stdout.split())
    return delay, rate


def test_hosts_are_reached_by_ssh_and_share_no_file_name_or_process(bed: Bed) -> None:
    for host in bed.hosts:
        said = ssh(bed, host.address, "hostname; touch ~/here /tmp/here /dev/shm/here; echo ~; ps ax | wc -l")
        assert said.stdout.split()[:2] == [host.name, str(bed.home)], said.stderr
        assert int(said.stdout.split()[2]) < 20
        assert (host.home / "here").exists()
        (host.home / "here").unlink()
        assert "Read-only file system" in ssh(bed, host.address, f"touch {PLACE}/here").stderr
    assert not (bed.laptop.home / "here").exists()


@pytest.mark.slow
def test_a_host_has_what_the_checkout_needs_but_not_rayrnn(bed: Bed) -> None:
    program = "import ray, torch, rayrnn"
    ended = bed.hosts[0].run("python3", "-c", program)
    assert "No module named 'rayrnn'" in ended.stderr
    assert bed.laptop.run("rayrnn", "--version").returncode == 0


@pytest.mark.slow
def test_a_slow_link_delays_and_a_lossy_one_still_carries_everything(bed: Bed) -> None:
    assert measure(bed, 1_000_000)[0] < 0.02
    bed.shape(SLOW)
    delay, rate = measure(bed, 4_000_000)
    assert delay > 0.02
    assert rate < 100e6
    bed.shape(LOSSY)
    assert measure(bed, 4_000_000)[1] < 1e9


@pytest.mark.slow
def test_a_host_is_killed_frozen_cut_off_and_brought_back(bed: Bed) -> None:
    host = bed.hosts[1]
    (host.home / "kept").write_text("on disk")
    host.popen("sleep", "1000")
    for stop, go in ((host.kill, host.start), (host.freeze, host.thaw), (host.cut, host.mend)):
        stop()
        assert ssh(bed, host.address, "true").returncode == 255
        go()
        assert ssh(bed, host.address, "cat kept").stdout == "on disk"
    assert host.processes() == []


@pytest.mark.slow
def test_nothing_of_a_bed_outlives_the_program_that_made_it(bed_is_possible: None) -> None:
    program = (
        "from tests.cluster.bed import Bed\n"
        "with Bed() as bed:\n"
        "    bed.hosts[0].popen('sleep', '1000', start_new_session=True)\n"
        "    while [process.name() for process in bed.hosts[0].processes()] != ['sleep']: pass\n"
        "    print(bed.folder, flush=True)\n"
        "    input()\n"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", program], stdin=pipe, stdout=pipe, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        folder = process.stdout.readline().strip()
        members = [p for p in psutil.Process(process.pid).children(recursive=True) if p.name() in ("sshd", "sleep")]
        assert len(members) == 6
        process.kill()
    _, alive = psutil.wait_procs(members, timeout=30)
    assert not alive
    with Bed() as other:
        assert not os.path.exists(folder)
    assert not other.folder.exists()
