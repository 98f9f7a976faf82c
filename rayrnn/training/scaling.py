"""What N workers make of a recipe that was written for one: a pure function of the recipe, of N and of the device.

Where N workers average after a round, N times the data has gone into as many updates, one after the other, as one
worker makes; and the mean of N has less noise than the optimizer could have borne. So each of N workers learns a
minibatch in N parts, one after the other: N times the updates, each from an N-th of the sequences, and the mean is
about as noisy as one worker's parameters are. The learning rate stays what it is. docs/scaling.md has the measurements.
"""

from rayrnn.recipe import Recipe

#: sequences in the smallest part, by the device's type: with fewer, the time of a step hardly shrinks any more
SMALLEST_PART = {"cpu": 4, "cuda": 64}


def parts_of_minibatch(recipe: Recipe, *, workers: int, device: str) -> int:
    """How many parts of a minibatch each of so many workers learns one after the other.

    Args:
        device: its type, `cpu` or `cuda`.
    """
    if recipe.averaging.scaling == "none":
        return 1
    return max(1, min(workers, recipe.training.batch_size // SMALLEST_PART[device]))
