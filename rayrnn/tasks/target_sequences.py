"""What tasks share whose answer is a sequence of symbols with a length of its own: its metrics, and how it is said.

B batch, U symbols of a target with its end, V symbols.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import torch
from torchmetrics import MeanMetric, Metric
from torchmetrics.text import CharErrorRate, SacreBLEUScore, WordErrorRate

from rayrnn.data.encoding import Encoding, Numbers, Survey
from rayrnn.data.rows import Label, Needs
from rayrnn.data.symbols import Symbols
from rayrnn.tasks import Choices
from rayrnn.tasks.metrics import Metrics, Results


class Bleu(SacreBLEUScore):
    """sacrebleu's BLEU of a corpus, 0 to 1; its sums may be merged, for nobody calls `forward`."""

    full_state_update = False

    def compute(self) -> torch.Tensor:
        """An order of which nothing matches counts as half a match, the next such one as a quarter (`exp`)."""
        matches, counts = self.numerator.clone(), self.denominator
        if not matches.any() or not counts.all():
            return torch.tensor(0.0)
        missing = matches == 0
        matches[missing] = 0.5 ** missing.cumsum(0)[missing]
        brevity = min(torch.tensor(0.0), 1 - self.target_len / self.preds_len)
        return torch.exp(brevity + torch.log(matches / counts).mean())


class Chrf(Metric):
    """sacrebleu's chrF of a corpus with one truth each, 0 to 1 (Popovic 2015): orders that are in no text do not count.

    torchmetrics leaves the truth out of its sums where an answer has no character of it.
    """

    full_state_update = False
    orders = 6
    beta = 2

    answered: torch.Tensor
    due: torch.Tensor
    matching: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("answered", "due", "matching"):
            self.add_state(name, torch.zeros(self.orders, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, answers: Sequence[str], truths: Sequence[str]) -> None:
        for pair in zip(answers, truths, strict=True):
            answer, truth = ("".join(text.split()) for text in pair)
            for place in range(self.orders):
                found, wanted = _ngrams(answer, place + 1), _ngrams(truth, place + 1)
                self.answered[place] += found.total() if wanted else 0
                self.due[place] += wanted.total()
                self.matching[place] += (found & wanted).total()

    def compute(self) -> torch.Tensor:
        there = (self.answered > 0) & (self.due > 0)
        if not self.matching[there].any():
            return torch.tensor(0.0)
        precision = (self.matching[there] / self.answered[there]).mean()
        recall = (self.matching[there] / self.due[there]).mean()
        factor = self.beta**2
        return (1 + factor) * precision * recall / (factor * precision + recall)


def _ngrams(characters: str, order: int) -> Counter[str]:
    return Counter(characters[start : start + order] for start in range(len(characters) - order + 1))


class TargetSequences:
    """Texts are compared as people read them: words stand between blanks."""

    generates = False
    holds_out_last = False
    unit = "nats a symbol"
    #: as messages call it
    name = ""

    def faults(self, choices: Choices) -> list[str]:
        faults = []
        if choices.truncate:
            faults.append(f"training.truncate must be 0: {self.name} reads a sequence whole before it answers")
        if choices.horizon:
            faults.append(f"data.horizon is for forecasts of numbers; the task is {self.name}")
        return faults

    def needs(self, choices: Choices) -> Needs:
        return Needs(self.name, Label.SEQUENCE)

    def encoding(self, inputs: Symbols | Numbers, found: Survey, choices: Choices) -> Encoding:
        assert found.targets is not None, "a survey of sequences with targets has fitted their symbols"
        return Encoding(inputs, found.targets, per_step=False, stride=choices.stride)

    def describe_loss(self, loss: float) -> str:
        return f"{loss:.4f} nats a symbol"

    def metrics(self, encoding: Encoding) -> Metrics:
        return Metrics(self.text_scores())

    def text_scores(self) -> dict[str, Metric]:
        """What texts are compared by."""
        return {
            "exact_match": MeanMetric(),
            "word_error_rate": WordErrorRate(),
            "character_error_rate": CharErrorRate(),
            "bleu": Bleu(),
            "chrf": Chrf(),
        }

    def count_answers(self, metrics: Metrics, answers: Sequence[str], truths: Sequence[str]) -> None:
        """Count texts that were found, beside the targets' own."""
        if not answers:
            return
        metrics.scores["exact_match"].update([float(one == other) for one, other in zip(answers, truths, strict=True)])
        for name in ("word_error_rate", "character_error_rate"):
            metrics.scores[name].update(list(answers), list(truths))
        metrics.scores["chrf"].update(answers, truths)
        metrics.scores["bleu"].update(list(answers), [[truth] for truth in truths])

    def results(self, metrics: Metrics) -> Results:
        """BLEU and chrF from 0 to 100, as sacrebleu gives them."""
        values: Results = {"loss": metrics.loss}
        for name in metrics.scores:
            value = metrics.value(name)
            values[name] = 100 * value if name in ("bleu", "chrf") and not math.isnan(value) else value
        return values

    def higher_is_better(self) -> Mapping[str, bool]:
        errors = ("word_error_rate", "character_error_rate")
        return {name: name not in errors for name in self.text_scores()}

    def faults_of(self, rows: pa.Table, encoding: Encoding) -> list[str]:
        """Why canonical rows cannot be learned."""
        return []

    def answers(self, outputs: np.ndarray, encoding: Encoding) -> dict[str, pa.Array]:
        raise AssertionError(f"the answers of {self.name} are searched for")
