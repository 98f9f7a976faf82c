"""Classification: which of some classes a sequence is. B batch, V classes: its outputs are logits, B V."""

import pyarrow as pa

from rayrnn.data.batches import Minibatch, inputs_of, label_targets
from rayrnn.data.encoding import Classes, Encoding, Numbers, Survey
from rayrnn.data.rows import Label, Needs
from rayrnn.data.symbols import Symbols
from rayrnn.tasks import Choices
from rayrnn.tasks.class_answers import ClassAnswers
from rayrnn.tasks.class_sets import ClassSets


class Classification(ClassAnswers):
    """The label of a sequence is its target, once it has been read to its end."""

    def faults(self, choices: Choices) -> list[str]:
        if choices.truncate:
            return ["training.truncate must be 0: a classification has one label, at the sequence's end"]
        return []

    def needs(self, choices: Choices) -> Needs:
        return Needs("classification", Label.SET if choices.several else Label.CLASS)

    def encoding(self, inputs: Symbols | Numbers, found: Survey, choices: Choices) -> Encoding:
        return Encoding(inputs, Classes.fit(found, choices.classes, several=choices.several), per_step=False)

    def minibatch(self, rows: pa.Table, encoding: Encoding) -> Minibatch:
        targets = label_targets(rows, encoding)
        return Minibatch.of(rows, inputs_of(rows, encoding), targets, per_step=False)

    def several(self) -> "SetClassification":
        """Which of the classes apply, any number of them."""
        return SetClassification()


class SetClassification(ClassSets, Classification):
    """The same, each class a question of its own."""
