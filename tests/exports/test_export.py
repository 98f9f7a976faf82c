"""`rayrnn export`: a file that can be used by whoever has only the file, or a word about why there is none."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from rayrnn.errors import DataError, RunError, UsageError
from rayrnn.exports.export import check_libraries, export
from rayrnn.recipe import task_of
from rayrnn.runs.directory import Run, create_run, open_run
from rayrnn.runs.model import load_network
from tests.exports.test_graphs import InALoop
from tests.typed import said
from tests.untrained import make_run, outputs_of, wave, write_files

onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: pip install 'rayrnn[export]'")
pytestmark = pytest.mark.usefixtures("ray_cluster")

TEXT = {"text": "abcd" * 30 + "éx" * 9, "length": 20}


def loop(*, num_inputs: int, num_outputs: int) -> torch.nn.Module:
    """What a recipe calls `tests.exports.test_export:loop`."""
    return InALoop(num_inputs, num_outputs)


def writing(path: Path, **model: Any) -> Run:
    return make_run(path, "language_model", TEXT, {"cell": "lstm", **model})


def classifying(folder: Path, task: str = "classification", data: dict[str, Any] | None = None, **model: Any) -> Run:
    if not (folder / "data").exists():
        write_files(folder / "data", lambda n, step: [*wave(n, step), f"kind {n % 3}"], "level,power,label")
    section = {"source": "csv", "path": str(folder / "data"), "label_column": "label", "skip_lines": 1}
    section |= {"normalize": "standardize"}
    return make_run(folder / "run", task, section | (data or {}), model)


def session_of(path: Path) -> tuple[Any, dict[str, Any]]:
    session = onnxruntime.InferenceSession(path)
    return session, json.loads(session.get_modelmeta().custom_metadata_map["rayrnn"])


def test_a_language_model_writes_from_the_file_alone(tmp_path: Path) -> None:
    run = writing(tmp_path / "run", layers=2)
    export(run, str(tmp_path / "model.onnx"))
    session, meaning = session_of(tmp_path / "model.onnx")
    symbols = meaning["inputs"][0]["symbols"]
    assert tuple(symbols) == run.encoding.vocabulary.symbols
    assert meaning["state_begins_with"] == "zeros"
    state = {part["name"]: np.zeros([1, *part["shape"][1:]], part["dtype"]) for part in meaning["state"]}
    read, logits = [symbols.index(symbol) for symbol in "abcdé"], []
    for symbol in read:
        names = [output.name for output in session.get_outputs()]
        found = dict(zip(names, session.run(None, {"inputs": np.array([[symbol]])} | state), strict=True))
        state = {part["name"]: found[part["next"]] for part in meaning["state"]}
        logits.append(found["answers"][0, 0])
    with torch.no_grad():
        expected = load_network(run)(torch.tensor([read]), None, None)[0][0]
    assert np.abs(np.array(logits) - expected.numpy()).max() < 1e-5


def test_a_classifier_answers_rows_of_its_data_from_the_file_alone(tmp_path: Path) -> None:
    run = classifying(tmp_path, bidirectional="concat", pooling="mean")
    export(run, str(tmp_path / "model.onnx"))
    session, meaning = session_of(tmp_path / "model.onnx")
    columns, answers = meaning["inputs"][0]["columns"], meaning["outputs"][0]
    assert [column["feature"] for column in columns] == ["level", "power"]
    assert answers["classes"] == ["kind 0", "kind 1", "kind 2"]
    assert (answers["are"], answers["probabilities_by"]) == ("logits", "softmax")
    shift, scale = (np.array([column[key] for column in columns]) for key in ("subtract", "divide_by"))
    for key, expected in outputs_of(run).items():
        lines = (tmp_path / "data" / Path(key).name).with_suffix(".csv").read_text().splitlines()[1:]
        values = np.array([list(map(float, line.split(",")[:2])) for line in lines])
        inputs = ((values - shift) / scale)[None].astype("float32")
        given = {"inputs": inputs, "mask": np.ones(inputs.shape[:2], bool)}
        assert np.abs(session.run(["answers"], given)[0][0] - expected.numpy()).max() < 1e-5, key


def test_a_forecast_says_how_far_ahead_and_in_which_units(tmp_path: Path) -> None:
    data = write_files(tmp_path / "series", wave, "level,power")
    section = {"source": "csv", "path": str(data), "horizon": 2, "normalize": "min_max"}
    section |= {"skip_lines": 1, "features": ["level", "power"]}
    export(make_run(tmp_path / "run", "regression", section), str(tmp_path / "model.pt2"))
    extra = {"rayrnn.json": ""}
    module = torch.export.load(tmp_path / "model.pt2", extra_files=extra).module()
    meaning = json.loads(extra["rayrnn.json"])
    answers = meaning["outputs"][0]
    assert (answers["are"], answers["steps_ahead"], answers["scaling"]) == ("numbers", 2, "min_max")
    assert [column["number"] for column in answers["columns"]] == ["level", "power"]
    assert answers["columns"][0]["multiply_by"] == meaning["inputs"][0]["columns"][0]["divide_by"]
    found = module(inputs=torch.zeros(1, 1, 2), state_0_hidden=torch.zeros(1, 8))
    assert found["answers"].shape == (1, 1, 2)


@pytest.mark.parametrize("loss", ["quantile", "student_t", "negative_binomial"])
def test_a_forecast_with_a_spread_says_what_its_outputs_are(loss: str, tmp_path: Path) -> None:
    data = write_files(tmp_path / "series", lambda number, step: [(number + step) % 5])
    section = {"source": "csv", "path": str(data), "horizon": 1, "normalize": "standardize"}
    run = make_run(tmp_path / "run", "regression", section, loss=loss)
    assert export(run, str(tmp_path / "model.pt2"), check=True).parity is not None
    extra = {"rayrnn.json": ""}
    module = torch.export.load(tmp_path / "model.pt2", extra_files=extra).module()
    answers = json.loads(extra["rayrnn.json"])["outputs"][0]
    outputs = module(inputs=torch.zeros(1, 1, 1), state_0_hidden=torch.zeros(1, 8))["answers"]
    assert outputs.shape == (1, 1, len(answers["parameters"]))
    column = answers["columns"][0]
    if loss == "quantile":
        assert answers["parameters"] == ["quantile 0.1", "quantile 0.5", "quantile 0.9"]
        assert answers["of_each_number"] == "sorted"
        said = {0.1: outputs[0, 0].sort().values[0].item()}
    else:
        assert answers["distribution"] == loss
        assert (column["multiply_by"] == 1) == (loss == "negative_binomial")
        said = {}
    export(run, str(tmp_path / "weights.safetensors"))
    with safe_open(tmp_path / "weights.safetensors", "pt") as file:
        assert json.loads(file.metadata()["rayrnn"])["spread"]["parameters"] == answers["parameters"]
    due = task_of(run.recipe).answers(outputs[0].detach().numpy(), run.encoding)
    for level, number in said.items():
        own = number * column["multiply_by"] + column["add"]
        assert due[f"prediction_q{level}"].to_pylist() == [pytest.approx(own, rel=1e-5)]


def test_an_encoder_and_a_decoder_answer_from_two_files(tmp_path: Path) -> None:
    rows = "".join(f"{word}\t{word[::-1]}\n" for word in ("abc", "bca", "cab", "aabb", "bb", "ca") * 5)
    (tmp_path / "pairs.tsv").write_text(rows)
    data = {"source": "pairs", "path": str(tmp_path / "pairs.tsv")}
    run = make_run(tmp_path / "run", "transduction", data, {"embedding": 6})
    written = export(run, str(tmp_path / "model.onnx"), check=True)
    assert [Path(path).name for path in written.paths] == ["model.encoder.onnx", "model.decoder.onnx"]
    assert written.parity is not None
    assert written.parity.difference < 1e-5
    encoder, read = session_of(tmp_path / "model.encoder.onnx")
    decoder, meaning = session_of(tmp_path / "model.decoder.onnx")
    given = [read["inputs"][0]["symbols"].index(symbol) for symbol in "abc"]
    names = [output.name for output in encoder.get_outputs()]
    whole = {"inputs": np.array([given]), "mask": np.ones((1, 3), bool)}
    memory = dict(zip(names, encoder.run(None, whole), strict=True))
    symbol, answer = meaning["inputs"][0]["first"], []
    for _ in range(4):
        names = [output.name for output in decoder.get_outputs()]
        found = dict(zip(names, decoder.run(None, {"symbols": np.array([symbol])} | memory), strict=True))
        memory |= {part["name"]: found[part["next"]] for part in meaning["state"]}
        symbol = int(found["answers"][0].argmax())
        answer.append(found["answers"][0])
    symbols = [int(logits.argmax()) for logits in answer]
    with torch.no_grad():
        network = load_network(run)
        expected = network(torch.tensor([given]), None, torch.ones(1, 3, dtype=torch.bool), torch.tensor([symbols]))[0]
    assert np.abs(np.array(answer) - expected[0].numpy()).max() < 1e-5


def test_torchs_lstm_takes_the_weights(tmp_path: Path) -> None:
    run = writing(tmp_path / "run", embedding=5, layers=2)
    file = tmp_path / "weights.safetensors"
    assert export(run, str(file), check=True).parity is not None
    tensors = load_file(file)
    with safe_open(file, "pt") as opened:
        meaning = json.loads(opened.metadata()["rayrnn"])
    asked = meaning["torch"]
    layer = torch.nn.LSTM(asked["input_size"], asked["hidden_size"], asked["num_layers"], batch_first=True)
    layer.load_state_dict({name: value for name, value in tensors.items() if name.startswith(("weight_", "bias_"))})
    read = torch.randint(run.encoding.num_inputs, (3, 11))
    with torch.no_grad():
        found = layer(tensors["embedding.weight"][read])[0] @ tensors["head.weight"].t() + tensors["head.bias"]
        expected = load_network(run)(read)[0]
    assert torch.allclose(found, expected, atol=1e-5)
    assert meaning["encoding"]["inputs"]["vocabulary"] == list(run.encoding.vocabulary.symbols)


def test_the_command_prints_the_largest_difference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = writing(tmp_path / "run", cell="gru")
    words = said(capsys, "export", run.path, "--to", tmp_path / "a.pt2", "--check")
    assert words.startswith("largest difference ")
    assert "1e-04 is allowed" in words
    values = json.loads(said(capsys, "export", run.path, "--to", tmp_path / "a.safetensors", "--check", "--json"))
    assert values["difference"] < values["allowed"]
    assert values["to"] == [str(tmp_path / "a.safetensors")]


def test_a_file_that_computes_something_else_is_not_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = writing(tmp_path / "run", cell="gru")
    monkeypatch.setattr("rayrnn.exports.export.TOLERANCE", -1.0)
    words = said(capsys, "export", run.path, "--to", tmp_path / "a.safetensors", "--check", exits=1)
    assert "was not written: what it computes differs from the run's network by" in words
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize("name", ["model.pt", "model", "model.onnx.gz"])
def test_another_name_is_refused(tmp_path: Path, name: str) -> None:
    run = create_run(tmp_path / "run")
    with pytest.raises(UsageError, match=r"its name must end in \.onnx, \.pt2, \.safetensors or \.zip"):
        export(run, str(tmp_path / name))


def test_a_file_that_is_there_is_kept(tmp_path: Path) -> None:
    run = writing(tmp_path / "run")
    (tmp_path / "a.safetensors").write_text("mine")
    with pytest.raises(UsageError, match=r"a\.safetensors is there already: remove it, or choose another --to"):
        export(run, str(tmp_path / "a.safetensors"))
    assert (tmp_path / "a.safetensors").read_text() == "mine"


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    run = writing(tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises((DataError, UsageError), match="file"):
        export(run, str(tmp_path / "file" / "a.safetensors"))


def test_a_run_without_a_model_is_told(tmp_path: Path) -> None:
    run = writing(tmp_path / "run")
    (run.path / "model.safetensors").unlink()
    with pytest.raises(RunError, match="the run has no model yet"):
        export(run, str(tmp_path / "a.onnx"))


def test_what_is_no_layer_of_torchs_is_told_why(tmp_path: Path) -> None:
    run = writing(tmp_path / "run", cell="graves_lstm")
    with pytest.raises(RunError, match=r"its cell has peepholes.*--to model\.onnx and --to model\.pt2 hold any"):
        export(run, str(tmp_path / "a.safetensors"))


def test_a_network_of_ones_own_needs_trust_and_a_form_that_can_be_followed(tmp_path: Path) -> None:
    data = write_files(tmp_path / "series", wave)
    section = {"source": "csv", "path": str(data), "horizon": 1}
    given = make_run(tmp_path / "given", "regression", section)
    recipe = given.recipe.model_copy(
        update={"model": type(given.recipe.model)(network="tests.exports.test_export:loop")}
    )
    run = create_run(tmp_path / "run")
    run.write_recipe(recipe)
    run.write_encoding(given.encoding)
    torch.manual_seed(0)
    run.write_model(loop(num_inputs=2, num_outputs=2).state_dict())
    with pytest.raises(UsageError, match="--trust"):
        export(open_run(run.path), str(tmp_path / "a.onnx"))
    trusted = open_run(run.path, trust=True)
    for name in ("a.onnx", "a.pt2"):
        with pytest.raises(
            RunError, match=r"network tests\.exports\.test_export:loop cannot be exported: torch cannot follow it"
        ):
            export(trusted, str(tmp_path / name))
    with pytest.raises(RunError, match="it is a InALoop, not one stack of recurrent layers"):
        export(trusted, str(tmp_path / "a.safetensors"))


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        return None if name == "onnxscript" else find_spec(name)

    monkeypatch.setattr("rayrnn.exports.export.find_spec", missing)
    with pytest.raises(UsageError, match=r"needs onnxscript, which is not installed here: pip install 'rayrnn\["):
        check_libraries(".onnx", "model.onnx")
    check_libraries(".pt2", "model.pt2")
