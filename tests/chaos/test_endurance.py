"""Ten minutes in which a random worker dies every twenty seconds: the run ends where undisturbed ones end."""

import json
import statistics
from pathlib import Path

import pytest

from rayrnn.recipe import Recipe, validate_recipe
from tests.chaos.story import assert_finished, kinds, run_under

pytestmark = [pytest.mark.slow, pytest.mark.timeout(2400)]

ROUNDS = 1000
SEEDS = range(5)
#: of a minibatch: two of them a round, so that the rounds last longer than the deaths
PAUSE = 0.3


def stdlib_reader(seed: int) -> Recipe:
    """A language model that is far from done after so many rounds: a loss that is the same anyway proves nothing."""
    return validate_recipe(
        {
            "name": "endurance",
            "data": {"path": "sysconfig:stdlib/email/*.py", "length": 256, "held_out": 0.1},
            "model": {"cell": "lstm", "hidden": 64, "layers": 1, "embedding": 32},
            "training": {
                "learning_rate": 0.003,
                "batch_size": 4,
                "truncate": 64,
                "evaluate_every": 50,
                "checkpoint_every": 50,
            },
            "averaging": {"workers": 3, "frequency": 2, "rounds": ROUNDS, "patience": 10.0},
            "seed": seed,
        }
    )


def test_a_run_outlives_a_death_every_twenty_seconds(tmp_path: Path) -> None:
    undisturbed = [
        run_under([], tmp_path / f"seed-{seed}", stdlib_reader(seed)).outcome["best_held_out_loss"] for seed in SEEDS
    ]
    story = run_under(
        [], tmp_path / "disturbed", stdlib_reader(0), pause=PAUSE, kill={"every": 20.0, "until": 600.0}, timeout=1500
    )
    curve = {line["round"]: line["held_out_loss"] for line in story.metrics if "held_out_loss" in line}
    deaths = kinds(story).count("killed")
    share = statistics.mean(len(line["workers"]) for line in story.metrics) / 3
    print(json.dumps({"undisturbed": undisturbed, "disturbed": curve, "deaths": deaths, "members": share}))
    assert_finished(story, rounds=ROUNDS, learned=0.6)
    assert deaths >= 25
    mean, spread = statistics.mean(undisturbed), statistics.stdev(undisturbed)
    assert abs(story.outcome["best_held_out_loss"] - mean) <= 3 * spread
