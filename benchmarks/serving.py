"""A server beside the bare loop, and beside one process a request: texts of a trained language model, in one run.

    python -m benchmarks.serving runs/python                 the table
    python -m benchmarks.serving runs/python --soak 600      ten minutes of load: does memory grow?

The bare loop is `rayrnn.generation.generate`: all texts begin and end together, nobody asks for them, and nothing is
told of them. Each row of the table asks for as many texts at once as it says, each by a client of its own that asks
again as soon as it has its answer.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp
import psutil
import torch

from rayrnn.generation import Drawing, generate
from rayrnn.runs.directory import Run, open_run

PROMPT = "def "


@dataclass
class Figures:
    """What some requests cost."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    symbols: int = 0

    def line(self, name: str) -> str:
        """One row of the table."""
        ordered = sorted(self.latencies)
        p50 = statistics.median(ordered)
        p99 = ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]
        first = f"{1000 * statistics.median(self.first):>10,.0f}" if self.first else f"{'-':>10}"
        return (
            f"{name:<34}{len(ordered) / self.seconds:>9.2f}{p50:>9.2f}{p99:>9.2f}{first}"
            f"{self.symbols / self.seconds:>12,.0f}"
        )


def bare(run: Run, texts: int, length: int, repeats: int) -> Figures:
    """The bare loop: `texts` at once, again and again."""
    figures = Figures()
    for number in range(repeats + 1):
        begun = time.perf_counter()
        pieces = generate(run, prime=PROMPT, length=length, samples=texts, drawing=Drawing(), seed=number)
        count = sum(1 for _ in pieces)
        took = time.perf_counter() - begun
        if number:  # the first one reads the model
            figures.seconds += took
            figures.latencies += [took] * texts
            figures.symbols += texts * (count - 1)
    return figures


def process_a_request(path: str, length: int, repeats: int) -> Figures:
    """`rayrnn generate`, a process for each text."""
    figures = Figures()
    for number in range(repeats):
        begun = time.perf_counter()
        command = [sys.executable, "-m", "rayrnn.cli", "generate", path, "--prime", PROMPT, "--length", str(length)]
        subprocess.run([*command, "--seed", str(number)], check=True, capture_output=True)
        figures.latencies.append(time.perf_counter() - begun)
        figures.symbols += length
    figures.seconds = sum(figures.latencies)
    return figures


@dataclass(frozen=True)
class Server:
    """One that runs."""

    url: str
    token: str
    process: "subprocess.Popen[str]"

    def memory(self) -> dict[str, float]:
        """MiB that each kind of its processes has for itself."""
        found: dict[str, float] = {}
        for process in [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]:
            try:
                name = " ".join(process.cmdline()[:1]).partition(":runs")[0] or process.name()
                found[name] = found.get(name, 0.0) + process.memory_full_info().uss / 2**20
            except psutil.Error:
                continue
        return found


@asynccontextmanager
async def serving(path: str, *options: str) -> AsyncIterator[Server]:
    """A server of this run, on a port of its own."""
    command = [sys.executable, "-m", "rayrnn.cli", "serve", path, "--port", "0", "--json", "--address", "local"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    told = json.loads(process.stdout.readline())
    try:
        yield Server(told["url"], told["token"], process)
    finally:
        process.terminate()
        process.wait()


async def load(server: Server, clients: int, length: int, seconds: float, *, stream: bool) -> Figures:
    """So many clients for so long, each asking again when it has its answer."""
    figures = Figures()
    begun = time.perf_counter()

    async def ask(session: aiohttp.ClientSession, number: int) -> None:
        while time.perf_counter() - begun < seconds:
            asked = {"prompt": PROMPT, "max_tokens": length, "stream": stream, "seed": number}
            sent = time.perf_counter()
            async with session.post(f"{server.url}/v1/completions", json=asked) as answer:
                assert answer.status == 200, await answer.text()
                if stream:
                    await answer.content.readany()
                    figures.first.append(time.perf_counter() - sent)
                    async for _ in answer.content.iter_any():
                        pass
                else:
                    await answer.read()
            figures.latencies.append(time.perf_counter() - sent)
            figures.symbols += length

    headers = {"Authorization": f"Bearer {server.token}"}
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        await asyncio.gather(*(ask(session, number) for number in range(clients)))
    figures.seconds = time.perf_counter() - begun
    return figures


async def table(path: str, length: int, seconds: float) -> None:
    """Print the figures side by side."""
    run = open_run(path)
    print(f"texts of {length} symbols; torch has {torch.get_num_threads()} threads in the bare loop")
    print(f"{'':<34}{'texts/s':>9}{'p50 s':>9}{'p99 s':>9}{'first ms':>10}{'symbols/s':>12}")
    print(process_a_request(path, length, 5).line("one process a text"))
    for clients in (1, 8, 64):
        alone = bare(run, clients, length, 3)
        print(alone.line(f"bare loop, {clients} at once"))
        async with serving(path) as server:
            await load(server, clients, length, 3, stream=True)
            for stream in (False, True):
                served = await load(server, clients, length, seconds, stream=stream)
                share = (served.symbols / served.seconds) / (alone.symbols / alone.seconds)
                name = f"served, {clients} {'streams' if stream else 'whole texts'}"
                print(f"{served.line(name)}   {share:.0%} of bare", flush=True)


async def soak(path: str, length: int, seconds: float) -> None:
    """Print what the processes have in memory while they answer."""
    async with serving(path) as server:
        begun = time.perf_counter()
        while (spent := time.perf_counter() - begun) < seconds:
            told = ", ".join(f"{name} {mib:,.0f}" for name, mib in sorted(server.memory().items()) if mib >= 20)
            print(f"{spent:>5.0f} s  MiB: {told}", flush=True)
            await load(server, 32, length, min(60.0, seconds - spent), stream=True)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run")
    parser.add_argument("--length", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--soak", type=float, default=0.0)
    arguments = parser.parse_args()
    if arguments.soak:
        asyncio.run(soak(arguments.run, arguments.length, arguments.soak))
    else:
        asyncio.run(table(arguments.run, arguments.length, arguments.seconds))


if __name__ == "__main__":
    main()
