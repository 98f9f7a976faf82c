"""The nearest neighbour as a translator: a text is answered with the answer to the likest text that was learned.

    python benchmarks/neighbours.py pairs.tsv compared.csv

The second file is what `rayrnn evaluate RUN --out compared.csv` wrote of the pairs that were held out; all other pairs
are those that may be copied. Likeness is chrF between the inputs, with an index of words so that it takes minutes. Both
are measured as `rayrnn evaluate` does.
"""

import csv
import sys
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

from rayrnn.data.encoding import Encoding, Numbers, Scaling
from rayrnn.recipe import task_named
from rayrnn.tasks import Searching

#: of the texts that share the rarest words with a text, so many are compared
CANDIDATES = 50


class Measures(NamedTuple):
    """Of answers, each from 0 to 1."""

    exact_match: float
    bleu: float
    chrf: float


def main(pairs: Path, compared: Path) -> tuple[Measures, Measures]:
    """Print the measures of the network's answers, and of the nearest neighbour's; and return them."""
    with compared.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    held_out = {row["input"] for row in rows}
    lines = (line.rstrip("\n").split("\t") for line in pairs.read_text(encoding="utf-8").splitlines())
    known = [(line[0].strip(), line[1].strip()) for line in lines if line[0].strip() not in held_out]
    nearest = Neighbours(known)
    truths = [row["truth"] for row in rows]
    print(f"{len(rows):,} texts, {len(known):,} to copy from")
    network = measure("network", [row["answer"] for row in rows], truths)
    return network, measure("nearest neighbour", [nearest.answer(row["input"]) for row in rows], truths)


class Neighbours:
    """Texts by their words."""

    def __init__(self, known: list[tuple[str, str]]) -> None:
        self._known = known
        self._places: dict[str, list[int]] = defaultdict(list)
        for place, (text, _) in enumerate(known):
            for word in set(text.lower().split()):
                self._places[word].append(place)

    def answer(self, text: str) -> str:
        """What the likest text is answered with."""
        votes: Counter[int] = Counter()
        for word in set(text.lower().split()):
            places = self._places.get(word, [])
            for place in places:
                votes[place] += 1 / len(places)  # type: ignore[assignment]
        best = max((place for place, _ in votes.most_common(CANDIDATES)), key=lambda p: self._like(text, p), default=0)
        return self._known[best][1]

    def _like(self, text: str, place: int) -> float:
        one, other = (Counter(_grams(each)) for each in (text, self._known[place][0]))
        both = sum((one & other).values())
        return 2 * both / max(1, sum(one.values()) + sum(other.values()))


def _grams(text: str) -> list[str]:
    padded = f" {text.lower()} "
    return [padded[start : start + size] for size in (2, 3, 4) for start in range(len(padded) - size + 1)]


def measure(name: str, answers: list[str], truths: list[str]) -> Measures:
    """Print what answers are measured by, and return it: 0 to 1."""
    task = task_named("transduction")
    assert isinstance(task, Searching)
    metrics = task.metrics(Encoding(Numbers(Scaling.none(1)), Numbers(Scaling.none(2)), per_step=False))
    task.count_answers(metrics, answers, truths)
    exact, bleu, chrf = (metrics.value(key) for key in ("exact_match", "bleu", "chrf"))
    print(f"{name:<18} exact match {exact:.4f}  BLEU {100 * bleu:.1f}  chrF {100 * chrf:.1f}")
    return Measures(exact, bleu, chrf)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
