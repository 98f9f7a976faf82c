"""A run directory may be anybody's, or damaged: it loads as it was, or one error says which file is at fault."""

import hashlib
import json
import os
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save as save_tensors

from rayrnn.errors import RayrnnError, RunError
from rayrnn.generation import Drawing, generate
from rayrnn.remote.fetch import load_record
from rayrnn.runs.checkpoints import newest_checkpoint
from rayrnn.runs.directory import open_run
from rayrnn.runs.model import build_network, find_network, load_network
from rayrnn.training.driver import train
from rayrnn.training.learner import check_checkpoint
from rayrnn.training.screen import curve
from tests.training.recipes import small

Damage = Callable[[Path], None]
CHECKPOINT = "checkpoints/round-000002"
#: longer than any of these may be, and yet no byte on the disk
SPARSE = 2**42


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, ray_cluster: None) -> Path:
    path = tmp_path_factory.mktemp("whole") / "run"
    train(small(averaging={"workers": 1, "rounds": 2, "outer": "nesterov"}, model={"hidden": 4}), out=path)
    (path / "cluster.json").write_text('{"job": "small-01234567", "out": "runs/small"}')
    return path


@pytest.fixture(scope="module")
def read(whole: Path) -> list[Any]:
    return everything(whole)


@pytest.fixture
def foreign(whole: Path, tmp_path: Path) -> Path:
    shutil.copytree(whole, tmp_path / "run")
    return tmp_path / "run"


def everything(path: Path) -> list[Any]:
    """All that is read from a run directory, by those who use it."""
    run = open_run(path)
    recipe, encoding, network = run.recipe, run.encoding, load_network(run)
    text = list(generate(run, prime=None, length=5, samples=1, drawing=Drawing(), seed=1))
    checkpoint, damages = newest_checkpoint(run.checkpoints)
    if damages:
        raise RayrnnError("\n".join(damages))
    assert checkpoint is not None
    check_checkpoint(checkpoint, build_network(recipe, encoding, find_network(recipe)), recipe, where=str(path))
    states = (network.state_dict(), checkpoint.model, checkpoint.outer, *checkpoint.optimizers)
    tensors = [{name: value.tolist() for name, value in state.items()} for state in states]
    metrics = [(line["round"], line["loss"], line.get("held_out_loss")) for line in run.metrics()]
    curve(run.metrics(), width=80)
    return [recipe, encoding, text, tensors, metrics, checkpoint.progress, load_record(run)]


def test_a_run_that_is_whole_loads(foreign: Path, read: list[Any]) -> None:
    assert everything(foreign) == read


def test_a_checkpoint_of_a_network_that_orders_its_parameters_otherwise_is_refused(foreign: Path) -> None:
    """The optimizer's moments go by that order: they would be another parameter's, in silence."""
    run = open_run(foreign)
    network = build_network(run.recipe, run.encoding, find_network(run.recipe))
    checkpoint, _ = newest_checkpoint(run.checkpoints)
    assert checkpoint is not None
    first = next(iter(network._modules))
    network._modules[first] = network._modules.pop(first)
    with pytest.raises(RunError, match="makes its parameters in another order"):
        check_checkpoint(checkpoint, network, run.recipe, where="here")
    del checkpoint.progress["parameters"]  # as rayrnn 0.1 wrote it
    whole = build_network(run.recipe, run.encoding, find_network(run.recipe))
    check_checkpoint(checkpoint, whole, run.recipe, where="here")


# Damage of any kind to any file

FILES = (
    *("recipe.yaml", "vocabulary.json", "metrics.jsonl", "model.safetensors", "cluster.json"),
    *(f"{CHECKPOINT}/{name}" for name in ("MANIFEST.json", "progress.json", "model.safetensors")),
    *(f"{CHECKPOINT}/{name}.safetensors" for name in ("outer", "optimizer-000")),
)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:20] + bytes([content[20] ^ 128]) + content[21:])


def lengthen(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\x00" * 64)


def make_sparse(path: Path) -> None:
    os.truncate(path, SPARSE)


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def link_to_itself(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def link_to_a_device(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def link_to_a_copy(path: Path) -> None:
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


def fill(content: bytes) -> Damage:
    def fill(path: Path) -> None:
        path.write_bytes(content)

    fill.__name__ = f"hold {content[:6]!r}"
    return fill


ANY_DAMAGE = (
    *(cut, flip, lengthen, make_sparse, make_pipe, make_folder, link_to_itself, link_to_a_device, link_to_a_copy),
    *(fill(content) for content in (b"", b"\x00" * 100, b"[]", b"null", b"[" * 100_000, b"\xff\xfe{}")),
)


#: every file damaged in one way, and one file in every way; `make check-all` damages all in all ways
DAMAGES = [
    pytest.param(
        *(file, damage),
        id=f"{file}-{damage.__name__}",
        marks=() if damage is cut or file == "recipe.yaml" else pytest.mark.slow,
    )
    for file in FILES
    for damage in ANY_DAMAGE
]


@pytest.mark.parametrize(("file", "damage"), DAMAGES)
def test_a_damaged_file_is_named_or_does_no_harm(foreign: Path, read: list[Any], file: str, damage: Damage) -> None:
    damage(foreign / file)
    loads_the_same_or_names(file, foreign, read)


def loads_the_same_or_names(file: str, foreign: Path, read: list[Any]) -> None:
    found, said = None, ""
    try:
        found = everything(foreign)
    except RayrnnError as error:
        said = str(error)
    if said:
        assert Path(file).name in said
        assert len(said) < 2000
    else:
        assert found == read or file == "metrics.jsonl"


# Values that fit the form and mean harm

JSON_VALUES = (None, True, -1, 1.5, 10**30, "x" * 1000, [[]])
JSON_KEYS = (
    *(("vocabulary.json", keys) for keys in (["version"], ["inputs"], ["inputs", "kind"], ["inputs", "vocabulary"])),
    *(("vocabulary.json", keys) for keys in (["targets"], ["per_step"], ["ahead"], ["inputs", "vocabulary", 0])),
    *((f"{CHECKPOINT}/progress.json", [key]) for key in ("round", "sums", "cursor", "best_round", "reason")),
    *((f"{CHECKPOINT}/progress.json", [key]) for key in ("broken_rounds", "evaluations_without_better")),
    *((f"{CHECKPOINT}/MANIFEST.json", ["model.safetensors", key]) for key in ("bytes", "sha256")),
    *((f"{CHECKPOINT}/MANIFEST.json", [key]) for key in ("progress.json", "../../../secret", "/etc/passwd", "")),
    ("cluster.json", ["job"]),
)


#: nothing, and a number; `make check-all` takes all
FEW_JSON_VALUES = (None, 10**30)


@pytest.mark.parametrize(
    "values", [FEW_JSON_VALUES, pytest.param(JSON_VALUES, marks=pytest.mark.slow)], ids=["few", "all"]
)
@pytest.mark.parametrize(("file", "keys"), JSON_KEYS)
def test_a_value_that_cannot_be_is_named(
    foreign: Path, file: str, keys: list[str | int], values: tuple[Any, ...]
) -> None:
    before = {name: (foreign / name).read_bytes() for name in FILES}
    for value in values:
        for name, content in before.items():
            (foreign / name).write_bytes(content)
        refused(foreign, file, keys, value)


def refused(foreign: Path, file: str, keys: list[str | int], value: Any) -> None:
    stored = json.loads((foreign / file).read_text())
    inside = stored
    for key in keys[:-1]:
        inside = inside[key]
    if inside.get(keys[-1]) == value if isinstance(inside, dict) else inside[keys[-1]] == value:
        return
    inside[keys[-1]] = value
    (foreign / file).write_text(json.dumps(stored))
    sign(foreign)
    with pytest.raises(RayrnnError, match=f"{Path(file).name} (cannot be used|does not fit)"):
        everything(foreign)


def sign(run: Path) -> None:
    """Have the manifest fit what is there, as whoever makes a run up would."""
    folder = run / CHECKPOINT
    try:
        manifest = json.loads((folder / "MANIFEST.json").read_text())
        for name, entry in manifest.items():
            content = (folder / name).read_bytes()
            entry |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    except (OSError, TypeError, AttributeError):
        return
    if (folder / "progress.json").stat().st_mtime > (folder / "MANIFEST.json").stat().st_mtime:
        (folder / "MANIFEST.json").write_text(json.dumps(manifest))


def test_a_manifest_that_is_signed_is_believed(foreign: Path, read: list[Any]) -> None:
    (foreign / CHECKPOINT / "progress.json").touch()
    sign(foreign)
    assert everything(foreign) == read


RECIPES = (
    *("model.hidden: 1000000000000000000", "model.hidden: 99999", "model.layers: 1000000", "model.layers: 999"),
    *("model.cell: gru", "model.cell: '../../x'", "model.embedding: 3", "model.bidirectional: sum", "model.layers: 2"),
    *("task: classification", "task: evil:Code", "model.network: evil:Code", "data.source: evil:Code"),
    *("averaging.outer: none", "training.optimizer: sgd", "name: ../x", "seed: -1", "data.length: 1e300"),
    *("averaging.workers: 1000000000", "averaging.frequency: 1000000000000", "training.prefetch: 1000000000"),
    *("data.num_classes: 300000000", "averaging.patience: .inf", "model.hidden: 4.5", "model.hidden: 0x1000000000000"),
)


@pytest.mark.parametrize("line", RECIPES)
def test_a_recipe_that_asks_for_something_else_is_refused_at_once(foreign: Path, read: list[Any], line: str) -> None:
    import yaml

    key, _, value = line.partition(": ")
    stored = yaml.safe_load((foreign / "recipe.yaml").read_text())
    *sections, leaf = key.split(".")
    (stored[sections[0]] if sections else stored)[leaf] = yaml.safe_load(value)
    (foreign / "recipe.yaml").write_text(yaml.safe_dump(stored))
    with pytest.raises(RayrnnError) as told:
        everything(foreign)
    assert (
        leaf in str(told.value)
        or "does not fit this run and its recipe" in str(told.value)
        or "--trust" in str(told.value)
    )


YAMLS = {
    "a bomb of aliases": "".join(
        [
            "a0: &a0 [x]\n",
            *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 20)),
        ]
    ),
    "a bomb of merges": "".join(
        ["a0: &a0 {x: 1}\n", *(f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}\n" for n in range(1, 40))]
    ),
    "depth in brackets": "name: " + "[" * 100_000,
    "depth in lines": "\n".join(" " * depth + "a:" for depth in range(2000)),
    "itself": "name: &a [*a]",
    "a number of many digits": "seed: " + "9" * 10_000,
    "a date that is none": "name: 2001-99-99",
    "a tag of Python": "name: !!python/object/apply:os.system ['touch pwned']",
    "a tag without a value": "name: !!int ''",
    "a tag of a date": "name: !!timestamp no",
    "a key that is a list": "? [a]\n: b",
    "a name that is no text": "name: !!binary /w==",
    "control characters": "name: \x1b[31m",
    "nothing": "",
    "many documents": "a: 1\n---\nb: 2",
}


@pytest.mark.parametrize("text", YAMLS.values(), ids=YAMLS)
def test_yaml_that_unfolds_or_means_nothing_is_refused_at_once(foreign: Path, read: list[Any], text: str) -> None:
    (foreign / "recipe.yaml").write_text(text)
    with pytest.raises(RayrnnError, match=r"recipe\.yaml"):
        everything(foreign)


def test_a_recipe_that_ends_after_any_of_its_lines_is_refused(foreign: Path, read: list[Any]) -> None:
    lines = (foreign / "recipe.yaml").read_text().splitlines(keepends=True)
    for count in range(len(lines)):
        (foreign / "recipe.yaml").write_text("".join(lines[:count]))
        with pytest.raises(RayrnnError, match=r"recipe\.yaml"):
            everything(foreign)


@pytest.mark.parametrize(
    "key", ["model.pooling", "training.truncate", "averaging.outer", "data.length", "task", "seed"]
)
def test_no_default_stands_in_for_a_key_that_a_runs_recipe_has_lost(foreign: Path, key: str) -> None:
    leaf = key.rsplit(".", maxsplit=1)[-1]
    lines = (foreign / "recipe.yaml").read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.lstrip().startswith(f"{leaf}:")]
    assert len(kept) == len(lines) - 1
    (foreign / "recipe.yaml").write_text("".join(kept))
    with pytest.raises(RunError, match=rf'recipe\.yaml cannot be used: the key "{key}" is not there'):
        everything(foreign)


@pytest.mark.parametrize("key", ["model.pooling", "averaging.outer", "data.length", "training.truncate", "seed"])
def test_a_key_without_its_value_is_lost_too(foreign: Path, key: str) -> None:
    leaf = key.rsplit(".", maxsplit=1)[-1]
    written = (foreign / "recipe.yaml").read_text()
    cut, count = re.subn(rf"(?m)^( *{leaf}:).*$", r"\1", written)
    assert count == 1
    (foreign / "recipe.yaml").write_text(cut)
    with pytest.raises(RunError, match=rf'recipe\.yaml cannot be used: the key "{key}" is not there'):
        everything(foreign)


def test_a_recipe_of_rayrnn_0_1_lacks_what_came_later(foreign: Path, read: list[Any]) -> None:
    written = (foreign / "recipe.yaml").read_text()
    assert "  line_ends: normalize\n" in written
    (foreign / "recipe.yaml").write_text(written.replace("  line_ends: normalize\n", ""))
    assert everything(foreign) == read


def header(**entries: Any) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text)) + text


TENSORS = {
    "a header of exabytes": struct.pack("<Q", 2**62) + b"{}",
    "a header that is no JSON": struct.pack("<Q", 2) + b"[[",
    "a tensor of exabytes": header(w={"dtype": "F32", "shape": [2**61], "data_offsets": [0, 2**63]}),
    "a shape that overflows": header(w={"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 0]}),
    "tensors in one place": header(**{name: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for name in "ab"})
    + bytes(4),
    "a type that nobody has": header(w={"dtype": "F1", "shape": [1], "data_offsets": [0, 1]}) + b"x",
    "no tensors": save_tensors({}),
    "another tensor": save_tensors({"weight": torch.zeros(3)}),
}


@pytest.mark.parametrize("content", TENSORS.values(), ids=TENSORS)
@pytest.mark.parametrize("file", [file for file in FILES if file.endswith(".safetensors")])
def test_tensors_of_another_size_than_the_recipes_are_refused(
    foreign: Path, read: list[Any], file: str, content: bytes
) -> None:
    (foreign / file).write_bytes(content)
    (foreign / CHECKPOINT / "progress.json").touch()
    sign(foreign)
    with pytest.raises(RayrnnError, match=Path(file).name):
        everything(foreign)


def test_each_tensor_of_the_model_is_compared_with_the_recipe(foreign: Path, read: list[Any]) -> None:
    from safetensors.torch import load_file

    weights = load_file(foreign / "model.safetensors")
    for name, tensor in weights.items():
        for other in (tensor.double(), tensor.reshape(-1, 1), tensor.to(torch.int8)):
            (foreign / "model.safetensors").write_bytes(save_tensors(weights | {name: other.contiguous()}))
            with pytest.raises(RayrnnError, match=name.replace(".", r"\.")):
                everything(foreign)


def zero_some(content: bytes) -> bytes:
    return content[:-400] + bytes(400)


def flip_one(content: bytes) -> bytes:
    return content[:-1000] + bytes([content[-1000] ^ 1]) + content[-999:]


def change_the_sum(content: bytes) -> bytes:
    at = content.index(b'"sha256":"') + 10
    return content[:at] + (b"1" if content[at : at + 1] == b"0" else b"0") + content[at + 1 :]


def rename_the_sum(content: bytes) -> bytes:
    return content.replace(b'"sha256"', b'"sha257"')


@pytest.mark.parametrize("change", [zero_some, flip_one, change_the_sum, rename_the_sum])
def test_a_model_with_changed_bytes_is_refused(foreign: Path, change: Callable[[bytes], bytes]) -> None:
    before = (foreign / "model.safetensors").read_bytes()
    changed = change(before)
    assert changed != before
    assert len(changed) == len(before)
    (foreign / "model.safetensors").write_bytes(changed)
    with pytest.raises(RunError, match=r"model\.safetensors is no model of this run: its bytes have changed"):
        load_network(open_run(foreign))


def test_a_model_of_rayrnn_0_1_has_no_sum_and_loads(foreign: Path, read: list[Any]) -> None:
    from safetensors.torch import load_file

    (foreign / "model.safetensors").write_bytes(save_tensors(load_file(foreign / "model.safetensors")))
    assert everything(foreign) == read


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ({"round": "x"}, "round"),
        ({"round": 10**30}, "round"),
        ({"round": 0}, "round"),
        ({"round": 3, "loss": "x"}, "loss"),
        ({"round": 3, "loss": [1]}, "loss"),
        ({"round": 3, "held_out_loss": {}}, "held_out_loss"),
    ],
)
def test_a_line_of_no_round_is_named(foreign: Path, line: dict[str, Any], key: str) -> None:
    with (foreign / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    with pytest.raises(RayrnnError, match=rf'metrics\.jsonl:3 cannot be used: key "{key}"'):
        everything(foreign)


@pytest.mark.parametrize("losses", [(1e308, -1e308, 0.0), (float("nan"), 1.0, 2.0), (5e-324, 0.0, 1e-323)])
def test_losses_of_any_size_can_be_drawn(losses: tuple[float, ...]) -> None:
    curve([{"round": 2**52 * n + 1, "loss": loss} for n, loss in enumerate(losses)], width=80)
