"""Small recipes that train in seconds."""

import random
from typing import Any

from rayrnn.recipe import Recipe, validate_recipe

Section = dict[str, Any]


def words(count: int = 600, seed: int = 0) -> str:
    """Text that has something to learn: words that follow one another by rule."""
    chance = random.Random(seed)
    follow = {"the": ["cat", "dog"], "cat": ["sat", "ran"], "dog": ["ran"], "sat": ["."], "ran": ["."], ".": ["the"]}
    word, text = "the", []
    for _ in range(count):
        text.append(word)
        word = chance.choice(follow[word])
    return " ".join(text)


def small(**sections: Section) -> Recipe:
    """A language model of `words`, its sections changed as said: `small(averaging={"rounds": 3})`."""
    values: Section = {
        "name": "small",
        "data": {"text": words(), "length": 40, "held_out": 0.1},
        "model": {"cell": "lstm", "hidden": 24, "layers": 1},
        "training": {
            "learning_rate": 0.01,
            "batch_size": 4,
            "truncate": 16,
            "evaluate_every": 2,
            "checkpoint_every": 2,
        },
        "averaging": {"workers": 2, "frequency": 2, "rounds": 6},
        "seed": 7,
    }
    for name, section in sections.items():
        values[name] = values[name] | section
    return validate_recipe(values)
