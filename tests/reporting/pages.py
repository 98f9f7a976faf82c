"""Reads pages of HTML as a strict reader does, and writes runs that have learned without a network."""

import json
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from rayrnn.recipe import Recipe
from rayrnn.runs.directory import Run, create_run
from tests.training.recipes import small

#: elements that have no end
VOID = {"meta", "img", "br", "hr", "link"}
#: attributes and rules by which a browser fetches something
FETCHED = re.compile(r"@import|url\(\s*['\"]?(?!data:)", re.IGNORECASE)

Line = dict[str, Any]


@dataclass
class Page(HTMLParser):
    """The elements, the words and the faults of a page."""

    content: str
    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._open: list[str] = []
        self.feed(self.content)
        self.close()
        assert self._open == [], f"never closed: {self._open}"
        self._check_addresses()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), f"<{tag}> has an attribute twice: {names}"
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def named(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def _check_addresses(self) -> None:
        """Nothing runs, and nothing is fetched from anywhere."""
        assert not {name for name, _ in self.elements} & {"script", "link", "iframe", "object", "embed", "base", "form"}
        for tag, attributes in self.elements:
            assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
            for name in ("src", "href", "xlink:href", "action", "data"):
                assert attributes.get(name, "data:image/png").startswith("data:image/png"), (tag, attributes)
        for style in re.findall(r"<style>(.*?)</style>", self.content, re.DOTALL):
            assert not FETCHED.search(style)
        assert not FETCHED.search(" ".join(attributes.get("style", "") for _, attributes in self.elements))


def worker_round(worker: int, *, steps: int = 1000, averaging: float = 0.1) -> Line:
    return {
        "worker": worker,
        "steps": steps,
        "updates": 4,
        "steps_per_second": steps / 1.0,
        "learning_seconds": 0.9 - averaging,
        "waiting_seconds": 0.05,
        "evaluating_seconds": 0.05,
        "averaging_seconds": averaging,
    }


def line(number: int, *workers: int, **more: Any) -> Line:
    """A round of a second, as a driver writes it."""
    taking_part = workers or (0, 1)
    return {
        "round": number,
        "loss": 2.0 / number + 0.5,
        "learning_rate": 0.01,
        "steps": 1000 * len(taking_part),
        "padding_share": 0.0,
        "seconds": 1.0,
        "bytes": 4000,
        "broken": [],
        "workers": [worker_round(worker) for worker in taking_part],
    } | more


def written(path: Path, lines: list[Line], recipe: Recipe | None = None) -> Run:
    """A run directory that has a recipe and these lines of metrics."""
    run = create_run(path)
    run.write_recipe(recipe or small(averaging={"rounds": len(lines) or 6}))
    (path / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    return run
