"""Tagging: which of some classes every step is. B batch, T time, V classes: its outputs are logits, B T V."""

import pyarrow as pa

from rayrnn.data.batches import Minibatch, inputs_of, label_targets
from rayrnn.data.encoding import Classes, Encoding, Numbers, Survey
from rayrnn.data.rows import Label, Needs
from rayrnn.data.symbols import Symbols
from rayrnn.tasks import Choices
from rayrnn.tasks.class_answers import ClassAnswers


class Tagging(ClassAnswers):
    """The label of a step is its target; a step without one has none."""

    def faults(self, choices: Choices) -> list[str]:
        return []

    def needs(self, choices: Choices) -> Needs:
        return Needs("tagging", Label.CLASSES)

    def encoding(self, inputs: Symbols | Numbers, found: Survey, choices: Choices) -> Encoding:
        return Encoding(inputs, Classes.fit(found, choices.classes), per_step=True)

    def minibatch(self, rows: pa.Table, encoding: Encoding) -> Minibatch:
        targets = label_targets(rows, encoding)
        return Minibatch.of(rows, inputs_of(rows, encoding), targets)
