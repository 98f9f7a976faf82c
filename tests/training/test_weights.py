"""Some sequences and steps count more than others: in what is learned, and in the mean over the workers."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray.data
import torch
from rich.console import Console
from torch.nn import functional

from rayrnn.data.batches import weighed
from rayrnn.data.encoding import Classes, Encoding, Numbers, Scaling
from rayrnn.data.forecast import Forecast
from rayrnn.data.order import Plan
from rayrnn.data.prepare import prepare
from rayrnn.data.rows import Needs, canonical
from rayrnn.data.sequences import take
from rayrnn.data.symbols import Symbols
from rayrnn.data.vocabulary import Vocabulary
from rayrnn.errors import DataError, RecipeError
from rayrnn.prediction.evaluate import evaluate
from rayrnn.recipe import Recipe, task_named, task_of, validate_recipe
from rayrnn.runs.checkpoints import read_checkpoint
from rayrnn.runs.directory import open_run
from rayrnn.runs.model import build_network
from rayrnn.tasks import Choices
from rayrnn.tasks.losses import added_up
from rayrnn.tasks.tagging import Tagging
from rayrnn.training.driver import train
from rayrnn.training.loop import make_optimizer
from tests.tasks.segments import segment

COUNT, STEPS = 16, 6


def sequences(path: Path, weights: object, **columns: Any) -> dict[str, Any]:
    """A Parquet of COUNT sequences of two classes, and of as many weights."""
    random = np.random.default_rng(3)
    values = random.normal(size=(COUNT, STEPS, 2)).round(3)
    kinds = ["up" if steps[:, 0].sum() > 0 else "down" for steps in values]
    ids = [f"s{number:02}" for number in range(COUNT)]
    table = {"id": ids, "values": values.tolist(), "kind": kinds, "count": weights, **columns}
    pq.write_table(pa.table({name: cells for name, cells in table.items() if cells is not None}), path)
    return {"source": "parquet", "path": str(path), "key": "id", "values": "values", "label": "kind", "weight": "count"}


def recipe_of(data: dict[str, Any], task: str = "classification", *, batch_size: int = 4, **averaging: Any) -> Recipe:
    values = {
        "name": "weights",
        "task": task,
        "data": {"held_out": 0, **data},
        "model": {"cell": "gru", "hidden": 8, "layers": 1},
        "training": {"optimizer": "sgd", "learning_rate": 0.5, "clip": 0, "batch_size": batch_size, "truncate": 0},
        "averaging": {"frequency": 1, "rounds": 4, "scaling": "none", "workers": 1, **averaging},
    }
    return validate_recipe(values)


def trained(recipe: Recipe, out: Path, *, resume: bool = False) -> dict[str, torch.Tensor]:
    train(recipe, out=out, resume=resume, console=Console(quiet=True))
    return read_checkpoint(out / "checkpoints" / f"round-{recipe.averaging.rounds:06d}").model


def plainly_trained(recipe: Recipe) -> dict[str, torch.Tensor]:
    """By a loop without workers, whose loss is the weighted mean."""
    torch.set_num_threads(1)
    done = prepare(recipe)
    torch.manual_seed(recipe.seed)
    model = build_network(recipe, done.encoding)
    optimizer, part = make_optimizer(model, recipe.training), done.training
    plan = Plan(part.sequences.steps, part.indices, batch_size=recipe.training.batch_size, seed=recipe.seed)
    for number in range(recipe.averaging.rounds):
        rows = take(part.sequences, plan.minibatch(number))
        minibatch = task_of(recipe).minibatch(rows, done.encoding)
        weights_B = torch.tensor(rows["weight"].to_pylist(), dtype=torch.float32)
        logits_BV, _ = model(minibatch.inputs, None, minibatch.mask)
        losses_B = functional.cross_entropy(logits_BV, minibatch.targets, reduction="none")
        optimizer.zero_grad()
        ((losses_B * weights_B).sum() / weights_B.sum()).backward()
        optimizer.step()
    return dict(model.state_dict())


UNEQUAL = [0.25 * (1 + number % 5) for number in range(COUNT)]


@pytest.fixture(scope="module")
def learned(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one worker has learned, in `run`, of the table `data`."""
    folder = tmp_path_factory.mktemp("learned")
    trained(recipe_of(sequences(folder / "data", UNEQUAL), batch_size=8), folder / "run")
    return folder


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(run / "checkpoints" / "round-000004").model


def test_one_worker_is_plain_training_with_the_weighted_mean(learned: Path) -> None:
    found, expected = weights_of(learned / "run"), plainly_trained(open_run(learned / "run").recipe)
    for name, values in expected.items():
        assert torch.equal(found[name], values), name


def test_two_workers_are_one_on_the_joined_minibatch(learned: Path, tmp_path: Path) -> None:
    data = sequences(tmp_path / "data", UNEQUAL)
    found = trained(recipe_of(data, batch_size=4, workers=2), tmp_path / "two")
    for name, values in weights_of(learned / "run").items():
        torch.testing.assert_close(found[name], values, msg=name)


def test_metrics_are_not_weighted_and_need_no_weights(learned: Path, tmp_path: Path) -> None:
    sequences(tmp_path / "bare", None)
    sequences(tmp_path / "other", [100.0 * number for number in range(COUNT)])
    run = open_run(learned / "run")
    places = (learned / "data", tmp_path / "bare", tmp_path / "other")
    reports = [evaluate(run, path=path).metrics for path in places]
    assert reports[0] == reports[1] == reports[2]


def rows_of(needs: Needs, **columns: Any) -> pa.Table:
    """Two canonical rows, `a` of three steps and `b` of two."""
    values = {} if "symbols" in columns else {"values": [[[1.0], [2], [4]], [[5.0], [6]]]}
    return canonical(pa.table({"key": ["a", "b"], **values, **columns}), needs, labelled=True)


X, AB = Numbers(Scaling.none(1)), Classes(("x", "y"))
LETTERS = Symbols(Vocabulary(("a", "b", "c")))
#: a task, its encoding, labels, weights, and the weights that its targets then have
CASES: list[tuple[str, Encoding, dict[str, Any], list[Any], list[float]]] = [
    ("classification", Encoding(X, AB, per_step=False), {"label": ["x", "y"]}, [3.0, 0.5], [3, 0.5]),
    ("classification", Encoding(X, AB, per_step=False), {"label": ["x", "y"]}, [[2.0] * 3, [1.0] * 2], [2, 1]),
    ("tagging", Encoding(X, AB, per_step=True), {"label": [["x", "y", None], ["y", "x"]]}, [3, 1], [3, 3, 1, 1]),
    (
        "tagging",
        Encoding(X, AB, per_step=True),
        {"label": [["x", "y", None], ["y", "x"]]},
        [[3.0, 2, 1], [0, 5.0]],
        [3, 2, 0, 5],
    ),
    ("regression", Encoding(X, X, per_step=False), {"label": [0.5, 2.0]}, [3.0, 0.5], [3, 0.5]),
    (
        "regression",
        Encoding(X, X, per_step=True),
        {"label": [[[1.0], [2.0], [3.0]], [[1.0], [2.0]]]},
        [[1.0, 2, 3], [4, 5.0]],
        [1, 2, 3, 4, 5],
    ),
    (
        "language_model",
        Encoding(LETTERS, LETTERS, per_step=True),
        {"symbols": [["a", "b", "c"], ["c", "a"]]},
        [[9.0, 2, 3], [9, 5.0]],
        [2, 3, 5],
    ),
]


@pytest.mark.parametrize(("task", "encoding", "labels", "weights", "due"), CASES)
def test_the_loss_is_the_weighted_mean_of_what_each_target_has_alone(
    task: str, encoding: Encoding, labels: dict[str, Any], weights: list[Any], due: list[float]
) -> None:
    rows = rows_of(needs_of_task(task), weight=weights, **labels)
    plain = task_named(task).minibatch(rows, encoding)
    minibatch = weighed(plain, rows, encoding)
    shape = plain.mask.shape if encoding.per_step else plain.mask.shape[:1]
    outputs = torch.randn(*shape, encoding.num_outputs, generator=torch.Generator().manual_seed(1))
    places = plain.target_mask.nonzero().tolist()
    assert len(places) == len(due)
    expected = 0.0
    for place, weight in zip(places, due, strict=True):
        alone = torch.zeros_like(plain.target_mask)
        alone[tuple(place)] = True
        expected += weight * float(task_named(task).loss(outputs, replace(plain, target_mask=alone))[0])
    total, count = task_named(task).loss(outputs, minibatch)
    assert float(total) == pytest.approx(expected)
    assert float(count) == pytest.approx(sum(due))


def needs_of_task(task: str) -> Needs:
    return task_named(task).needs(Choices())


def test_a_forecasts_weights_are_those_of_the_steps_that_are_forecast() -> None:
    task, forecast = task_named("regression"), Forecast((1, 2), (0,))
    encoding = Encoding(X, X.forecast(forecast), per_step=True, ahead=1, forecast=forecast)
    rows = rows_of(task.needs(Choices(horizon=1)), weight=[[9.0, 2, 3], [9.0, 5]])
    minibatch = weighed(task.minibatch(rows, encoding), rows, encoding)
    outputs = torch.zeros(2, 3, 2)
    total, count = task.loss(outputs, minibatch)
    assert float(total) == 2 * 2**2 + 3 * 4**2 + 3 * 4**2 + 5 * 6**2
    assert float(count) == 2 + 3 + 3 + 5


def test_weights_lie_beside_the_targets_of_a_segment() -> None:
    encoding = Encoding(X, AB, per_step=True)
    rows = rows_of(needs_of_task("tagging"), weight=[[1.0, 2, 3], [4, 5.0]], label=[["x", "y", "x"], ["y", "x"]])
    minibatch = weighed(task_named("tagging").minibatch(rows, encoding), rows, encoding)
    first, second = minibatch.segments(2)
    assert first.weights is not None
    assert second.weights is not None
    assert (first.weights.tolist(), second.weights.tolist()) == ([[1, 2], [4, 5]], [[3], [0]])
    assert [part.weights.tolist() for part in minibatch.parts(2) if part.weights is not None] == [
        [[1, 2, 3]],
        [[4, 5, 0]],
    ]


def test_sets_of_classes_and_sequences_of_symbols_are_weighed() -> None:
    sets = task_named("classification").several()  # type: ignore[attr-defined]
    targets, mask = torch.tensor([[1.0, 0], [0, 1]]), torch.tensor([True, True])
    outputs = torch.tensor([[2.0, -1], [0.5, 0.5]])
    weights = torch.tensor([3.0, 0.25])
    own = [float(sets.loss(outputs[n : n + 1], segment(targets[n : n + 1], mask[:1]))[0]) for n in range(2)]
    total, count = sets.loss(outputs, replace(segment(targets, mask), weights=weights))
    assert (float(total), float(count)) == (pytest.approx(3 * own[0] + own[1] / 4), 3.25)
    logits_BUV, symbols_BU = torch.randn(2, 3, 4), torch.tensor([[1, 2, 3], [1, 1, 0]])
    mask_BU = torch.tensor([[True, True, True], [True, False, False]])
    for task in (task_named("transduction"), task_named("ctc")):
        parts = [task.loss(logits_BUV[n : n + 1], segment(symbols_BU[n : n + 1], mask_BU[n : n + 1])) for n in range(2)]
        total, count = task.loss(logits_BUV, replace(segment(symbols_BU, mask_BU), weights=weights))
        assert float(total) == pytest.approx(3 * float(parts[0][0]) + float(parts[1][0]) / 4, rel=1e-4)
        assert float(count) == 3 * 3 + 1 * 0.25


def test_weights_of_1_are_as_none_bit_for_bit() -> None:
    encoding = Encoding(X, AB, per_step=False)
    rows = rows_of(needs_of_task("classification"), label=["x", "y"], weight=[1, 1])
    minibatch = task_named("classification").minibatch(rows, encoding)
    assert weighed(minibatch, rows, encoding) is minibatch


def test_what_has_no_weight_at_all_moves_nothing_and_weighs_nothing() -> None:
    model = torch.nn.Linear(1, 2)
    before = [value.clone() for value in model.parameters()]
    total, count = added_up(model(torch.ones(3, 1)).square().sum(1), torch.ones(3, dtype=torch.bool), torch.zeros(3))
    (total / torch.where(count > 0, count, torch.ones_like(count))).backward()
    torch.optim.SGD(model.parameters(), lr=1.0).step()
    for value, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(value, old)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([1.0, -0.5], r"sequence 'b': its weight \(data.weight\) is -0.5; it must be 0, or a number from 1e-12"),
        ([1.0, None], r"sequence 'b': its weight \(data.weight\) is missing"),
        ([float("nan"), 1.0], r"sequence 'a': its weight \(data.weight\) is missing"),
        ([1.0, float("inf")], "sequence 'b': .* is inf"),
        ([1.0, 1e39], r"sequence 'b': .* is 1e\+39"),
        ([1.0, 1e38], r"sequence 'b': .* is 1e\+38; .* to 1e\+12: .* all of them may be divided by one number"),
        ([1e-300, 1e-300], "sequence 'a': .* is 1e-300; it must be 0, or a number from 1e-12"),
        ([[1.0, 1, 1], [1.0]], r"sequence 'b' has 2 steps, and 1 weight \(data.weight\)"),
        ([[1.0, 1, 1], [1.0, -2]], "sequence 'b', step 1: its weight .* is -2"),
        ([[1.0, 1, 2], [1.0, 1]], "sequence 'a' has one answer, and its weight .* changes from 1 to 2 at step 2"),
        (["a", "b"], "column `weight` .* holds string: a weight is a number"),
    ],
)
def test_weights_that_are_none_are_refused(weight: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        rows_of(needs_of_task("classification"), label=["x", "y"], weight=weight)


def test_weights_that_add_up_to_nothing_are_refused(ray_cluster: None, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"every weight \(data.weight\) in the 16 sequences that are learned is 0"):
        prepare(recipe_of(sequences(tmp_path / "data", [0] * COUNT)))


def test_a_column_of_weights_is_no_feature(ray_cluster: None, tmp_path: Path) -> None:
    steps = {
        "id": [1, 1, 2, 2],
        "at": [0, 1, 0, 1],
        "x": [1.0, 2, 3, 4],
        "w": [2, 2, 1, 3],
        "kind": ["u", "u", "v", "u"],
    }
    pq.write_table(pa.table(steps), tmp_path / "steps")
    (tmp_path / "csv").mkdir()
    for number in (1, 2):
        lines = [
            f"{x},{w},{k}"
            for n, x, w, k in zip(*(steps[c] for c in ("id", "x", "w", "kind")), strict=True)
            if n == number
        ]
        (tmp_path / "csv" / f"{number}.csv").write_text("\n".join(["x,w,kind", *lines]))
    parquet = {"source": "parquet", "path": str(tmp_path / "steps"), "key": "id", "order_by": "at", "label": "kind"}
    csv = {"source": "csv", "path": str(tmp_path / "csv"), "skip_lines": 1, "label_column": "kind"}
    for data in (parquet, csv):
        done = prepare(recipe_of(data | {"weight": "w"}, "tagging"))
        assert done.encoding.column_names == ("x",)
        rows = take(done.training.sequences, np.arange(2)).sort_by("key")
        assert rows["weight"].to_pylist() == [[2, 2], [1, 3]]


def test_a_dataset_may_bring_weights_to_a_task_that_weighs(ray_cluster: None) -> None:
    table = pa.table({"key": ["a", "b"], "values": [[1.0, 2], [3.0]], "label": ["x", "y"]})
    dataset = ray.data.from_arrow(table.append_column("weight", pa.array([1.0, 2])))
    recipe = recipe_of({"source": "csv", "path": "x", "label_column": "y"})
    assert "weight" in prepare(recipe, dataset).training.sequences.schema.names
    asks = recipe_of({"source": "csv", "path": "x", "label_column": "y", "weight": "w"})
    with pytest.raises(DataError, match=r"data.weight is given, and the dataset does not say"):
        prepare(asks, ray.data.from_arrow(table))


def test_a_task_that_does_not_weigh_refuses_weights() -> None:
    values = {
        "name": "x",
        "task": "tests.training.test_weights:Careless",
        "data": {"source": "csv", "path": "x", "weight": "w"},
    }
    with pytest.raises(RecipeError, match=r"data.weight is 'w', and task .*Careless does not say that it weighs"):
        validate_recipe(values)


class Careless(Tagging):
    """Its losses know nothing of weights."""

    weighs = False
