"""How the hosts of a cluster file look on the screen: what each is like, and how fast any two talk."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rayrnn.cluster.checks import Finding
from rayrnn.cluster.cluster_file import ClusterFile
from rayrnn.cluster.hosts import Muster
from rayrnn.cluster.plan import Plan
from rayrnn.cluster.screen import table
from rayrnn.cluster.survey import Host

#: more pairs than that are summed up
MOST_PAIRS = 15
GIBIBYTE = 2**30


def show_plan(console: Console, plan: Plan) -> None:
    """Print all hosts side by side, and what should be otherwise on them."""
    if not plan.hosts:
        return
    console.print(hosts_table(plan.hosts), highlight=False)
    show_findings(console, [finding for finding in plan.findings if finding not in plan.faults])
    if plan.left_out:
        console.print(Text(f"left out: {', '.join(plan.left_out)}", style="yellow"), highlight=False)


def show_findings(console: Console, findings: list[Finding]) -> None:
    """Print what works in spite of itself."""
    for finding in findings:
        console.print(Text.assemble(("note: ", "yellow"), str(finding)), highlight=False, soft_wrap=True)


def hosts_table(hosts: list[Host]) -> Table:
    """One line a host."""
    shown = table("host", "name", "Python", "rayrnn", "Ray", "CPUs", "GPUs", "memory", "/dev/shm", "disk", "clock")
    shown.padding = (0, 1, 0, 0)
    for host in hosts:
        if host.unreachable:
            shown.add_row(host.address, Text("not reached", style="red"), *[""] * 9)
            continue
        facts = host.facts
        packages = (facts["target"] or {}).get("packages", {})
        shown.add_row(
            host.address,
            facts["host_name"],
            facts["python"],
            packages.get("rayrnn", "-"),
            packages.get("ray", "-"),
            str(facts["cpus"]),
            str(facts["gpus"]) if facts["gpus"] else "-",
            *(f"{size / GIBIBYTE:.0f}G" for size in (facts["memory"], facts["shared_memory"])),
            f"{min(facts['disk'].values()) / GIBIBYTE:.0f}G",
            f"{host.clock:+.0f} s" if host.clock else "same",
        )
    return shown


def show_muster(console: Console, file: ClusterFile, muster: Muster) -> None:
    """Say that a cluster is up, how fast its hosts talk, and what to type next."""
    console.print(Text(f"{file.name} is up{' already' if muster.was_up else ''}", style="bold green"))
    facts = Table.grid(padding=(0, 2))
    facts.add_row("  hosts", f"{len(muster.joined)}: {', '.join(muster.joined)}")
    facts.add_row("  computing", ", ".join(sorted(set(muster.computes.values()))))
    facts.add_row("  next", f"rayrnn train RECIPE --cluster {file.path}, rayrnn status, rayrnn down {file.path}")
    console.print(facts, highlight=False)
    if muster.pairs:
        console.print(_pairs(muster), highlight=False)


def _pairs(muster: Muster) -> Table:
    slowest_first = sorted(muster.pairs, key=lambda pair: pair[3])
    shown = table("from", "to", "there and back", "bandwidth")
    for first, second, latency, bandwidth in slowest_first[:MOST_PAIRS]:
        rate = f"{bandwidth / 1e9:.2f} Gbit/s" if bandwidth >= 1e9 else f"{bandwidth / 1e6:.0f} Mbit/s"
        shown.add_row(first, second, f"{latency * 1000:.2f} ms", rate)
    if len(slowest_first) > MOST_PAIRS:
        shown.caption = f"the slowest {MOST_PAIRS} of {len(slowest_first)} pairs"
    return shown
