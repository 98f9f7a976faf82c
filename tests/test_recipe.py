"""Recipes: what is accepted, and what each mistake is told."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from rayrnn.averaging.outer import RULES
from rayrnn.errors import RecipeError
from rayrnn.models import CELLS
from rayrnn.recipe import Recipe, load_recipe, shipped_recipes, validate_recipe
from rayrnn.recipe.section import Section

MINIMAL = "name: small\ndata: {text: abcabc, length: 3}\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", shipped_recipes())
def test_every_shipped_recipe_loads_and_says_what_it_is(name: str) -> None:
    assert load_recipe(name).name == name
    assert shipped_recipes()[name].startswith("# ")


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_resolved_recipe_is_the_same_recipe(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    assert load_recipe(write(tmp_path, recipe.to_yaml())) == recipe


def test_overrides_replace_values_and_numbers_may_be_scientific(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, MINIMAL), ["training.learning_rate=1e-3", "model.cell=gru", "data.held_out=0"])
    assert (recipe.training.learning_rate, recipe.model.cell, recipe.data.held_out) == (1e-3, "gru", 0)


@pytest.mark.parametrize("text", ["Hello: world", "123", "a = b", "yes", "# no comment"])
def test_an_override_of_text_is_taken_word_for_word(text: str, tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, MINIMAL), [f"data.text={text}"])
    assert recipe.model_dump()["data"]["text"] == text


#: what stands in a recipe, and the text that it is where text may stand
WORDS = [
    *((word, word) for word in ("yes", "no", "on", "off", "y", "n", "Yes", "NO", "On", "True", "FALSE")),
    *((word, word) for word in ("true", "false", "12", "007", "010", "0x1F", "1_000", "+3", "2.50", "1e3", "-0")),
    *((word, word) for word in ("12:30", "2024-01-01", "'null'", "=", "1.0", "0o17", ".5")),
]
STEPS = "name: small\ntask: classification\ndata:\n  source: csv\n  path: files\n"


@pytest.mark.parametrize(("word", "text"), [(word, text.strip("'")) for word, text in WORDS])
def test_what_is_written_where_text_may_stand_is_text_in_a_file_by_set_and_kept(
    word: str, text: str, tmp_path: Path
) -> None:
    keys = "classes", "features", "ignore", "categorical"
    written = load_recipe(write(tmp_path, STEPS + "".join(f"  {key}: [{word}, other]\n" for key in keys)))
    by_set = load_recipe(write(tmp_path, STEPS), [f"data.{key}=[{word}, other]" for key in keys])
    assert written == by_set == load_recipe(write(tmp_path, written.to_yaml()))
    data = written.model_dump()["data"]
    assert [list(map(str, data[key])) for key in keys] == [[text, "other"]] * 4


@pytest.mark.parametrize(
    ("words", "values"),
    [
        ("{a: yes, b: on, c: n}", {"a": "yes", "b": "on", "c": "n"}),
        ("{a: true, b: false}", {"a": True, "b": False}),
        ("{a: 2.50, b: 1e-3, c: 12, d: '2.50', e: 007}", {"a": 2.5, "b": 1e-3, "c": 12, "d": "2.50", "e": "007"}),
        ("{on: 1, 2: x, a: {no: [off, 1.0]}}", {"on": 1, "2": "x", "a": {"no": ["off", 1.0]}}),
    ],
)
def test_what_no_schema_knows_are_numbers_booleans_and_text_as_they_are_written(
    words: str, values: dict[str, object], tmp_path: Path
) -> None:
    network = MINIMAL + "model: {network: 'any:Network'}\n"
    written = load_recipe(write(tmp_path, network.replace("'any:Network'}", f"'any:Network', options: {words}}}")))
    by_set = load_recipe(write(tmp_path, network), [f"model.options={words}"])
    whole = load_recipe(write(tmp_path, network), [f"model={{network: 'any:Network', options: {words}}}"])
    assert written.model.options == by_set.model.options == whole.model.options == values
    again = load_recipe(write(tmp_path, written.to_yaml())).model.options
    assert repr(again) == repr(values)


@pytest.mark.parametrize("word", ["yes", "on", "1", "no", "True"])
def test_true_and_false_are_the_only_booleans(word: str) -> None:
    class Foreign(Section):
        flag: bool
        both: bool | str = "neither"

    assert Foreign.model_validate({"flag": "true", "both": True}).both is True
    assert Foreign.model_validate({"flag": False, "both": word}).both == word
    with pytest.raises(ValueError, match="the booleans are true and false"):
        Foreign.model_validate({"flag": word})


@pytest.mark.parametrize(
    "setting", ["data.length=true", "seed=false", "model.dropout=[true]", "averaging.workers=true"]
)
def test_a_boolean_is_no_number(setting: str, tmp_path: Path) -> None:
    *sections, key = setting.partition("=")[0].split(".")
    value = setting.partition("=")[2]
    with pytest.raises(RecipeError, match=r"true|false"):
        load_recipe(write(tmp_path, MINIMAL), [setting])
    values = {"name": "x", "data": {"text": "abc"}}
    section: dict[str, object] = values.setdefault(sections[0], {}) if sections else values  # type: ignore[assignment]
    section[key] = value == "true"
    with pytest.raises(RecipeError):
        validate_recipe(values)


def test_a_key_that_is_there_twice_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"the key 'seed' is there twice(.|\n)*line 4"):
        load_recipe(write(tmp_path, MINIMAL + "seed: 1\nseed: 2\n"))


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("model: {hiden: 3}", r'recipe.yaml:3: recipe key "model.hiden" is unknown; did you mean "hidden"\?'),
        ("averging: {}", r'recipe key "averging" is unknown; did you mean "averaging"\?'),
        ("model: {hidden: many}", r'recipe.yaml:3: recipe key "model.hidden" is .many.: .*valid integer'),
        ("model: {hidden: [4, 0]}", r'^[^\n]*recipe key "model.hidden.1" is 0: .*greater than 0$'),
        ("model: {hidden: [0], layers: [2]}", r'(?s)"model.hidden.0" is 0.*"model.layers" is \[2\]'),
        ("model: {hidden: {a: 1}}", r'recipe key "model.hidden" is \{.a.: 1\}: a list is due'),
        ("model: {hidden: [4], layers: 2}", "model.hidden has 1 size, and model.layers is 2"),
        ("model: {dropout_at: first}", 'recipe key "model.dropout_at" is .first.: a list is due'),
        ("model: {dropout_at: [last, last]}", "model.dropout_at names a place twice: last, last"),
        ("model: {dropout: 0.5, dropout_at: []}", "model.dropout is 0.5, and model.dropout_at names no place"),
        ("training: {dl4j: {versio: 1.0.0}}", 'recipe key "training.dl4j.versio" is unknown; did you mean "version"'),
        ("model: {hidden: 0}", r'recipe key "model.hidden" is 0: .*greater than 0'),
        ("training: {learning_rate: -1}", r'"training.learning_rate" is -1: .*greater than 0'),
        ("training: {learning_rate: .nan}", r'"training.learning_rate" is nan: .*finite'),
        ("model: {cell: lsmt}", r"'rnn', 'lstm', 'gru' or 'graves_lstm'"),
        ("averaging: {wire: int4}", r"'float32', 'bfloat16' or 'int8'"),
        ("model: {bidirectional: sum}", "must not see the symbol it predicts"),
        ("name: ../outside", r'"name" is .../outside.: due is a letter or digit, then letters, digits, \. _ and -$'),
        ("model: {network: ':Net'}", r'"model.network" is .:Net.: due is package\.module:Name, or the name'),
    ],
)
def test_a_mistake_is_named_with_its_file_line_and_key(yaml: str, message: str, tmp_path: Path) -> None:
    text = MINIMAL.replace("name: small\n", "") if yaml.startswith("name:") else MINIMAL
    with pytest.raises(RecipeError, match=message):
        load_recipe(write(tmp_path, text + yaml + "\n"))


def test_every_mistake_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"(?s)hiden.*seed"):
        load_recipe(write(tmp_path, MINIMAL + "model: {hiden: 3}\nseed: -1\n"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, 'key "name" is missing'),
        ({"name": "x", "data": {}}, "data.path or data.text"),
        ({"name": "x", "data": {"length": 100}}, "data.path or data.text"),
        ({"name": "x", "data": {"path": "a", "text": "b"}}, "data.path or data.text"),
        ({"name": "x", "data": {"source": "exel", "path": "a"}}, "data.source 'exel' is unknown"),
        ({"name": "x", "data": {"text": "a", "held_out": 1.5}}, "held_out"),
        ({"name": "x", "data": {"text": "a"}, "task": "tagging"}, "no labels for tagging"),
        (
            {"name": "x", "data": {"source": "given", "path": "a"}},
            "with data.source: given; text, csv.*data.source, too",
        ),
        (
            {"name": "x", "data": {"source": "given", "horizen": 1}},
            'key "data.horizen" is unknown; did you mean "horizon"',
        ),
        (["name"], "dictionary"),
    ],
)
def test_values_that_make_no_recipe_are_refused(values: object, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        validate_recipe(values)


def test_an_override_that_is_no_assignment_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="takes key=value"):
        load_recipe(write(tmp_path, MINIMAL), ["training.learning_rate"])


def test_an_unknown_recipe_is_told_the_nearest_shipped_one() -> None:
    with pytest.raises(RecipeError, match='did you mean "python"'):
        load_recipe("pyhton")


def test_a_shipped_recipe_is_found_beside_a_directory_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("gestures", "mine"):
        (tmp_path / name).mkdir()
    assert load_recipe("gestures").data.describe() == "gestures/train.parquet"
    with pytest.raises(RecipeError, match=r"recipe mine cannot be read: .*directory"):
        load_recipe("mine")


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"front": "conv", "front_width": 3}, "conv 64-64, 2 x 256 lstm"),
        ({"parallel": "conv", "cell": "gru"}, "2 x 256 gru beside conv 128-256-128"),
    ],
)
def test_a_network_with_convolutions_is_called_by_them(model: dict[str, object], words: str) -> None:
    data = {"source": "csv", "path": "x"}
    recipe = validate_recipe({"name": "small", "task": "classification", "data": data, "model": model})
    assert recipe.model.describe() == words
    assert recipe.model.front_width == ((3,) if "front_width" in model else (5,))


def test_what_is_no_yaml_is_refused_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"not valid YAML(.|\n)*line 1"):
        load_recipe(write(tmp_path, "name: [unclosed"))


def test_yaml_that_would_build_objects_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="not valid YAML"):
        load_recipe(write(tmp_path, "name: !!python/object/apply:os.getcwd []"))


def test_a_recipe_cannot_be_changed() -> None:
    recipe = load_recipe("python")
    with pytest.raises(ValueError, match="frozen"):
        recipe.seed = 1


def test_outer_optimizers_come_with_their_papers_values() -> None:
    base = {"name": "x", "data": {"text": "a"}}
    nesterov = validate_recipe(base | {"averaging": {"outer": "nesterov"}}).averaging
    bmuf = validate_recipe(base | {"averaging": {"outer": "bmuf", "workers": 4}}).averaging
    own = validate_recipe(base | {"averaging": {"outer": "nesterov", "outer_momentum": 0.5}}).averaging
    assert (nesterov.outer_learning_rate, nesterov.outer_momentum) == (0.7, 0.9)
    assert (bmuf.outer_learning_rate, bmuf.outer_momentum) == (1.0, 0.75)
    assert own.outer_momentum == 0.5
    with pytest.raises(RecipeError, match=r"bmuf needs an averaging.outer_momentum"):
        validate_recipe(base | {"averaging": {"outer": "bmuf", "workers": "auto"}})
    assert validate_recipe(base | {"averaging": {"outer": "bmuf", "workers": "auto", "outer_momentum": 0.5}})


def test_an_average_travels_no_longer_than_a_round_and_leaves_the_optimizers_state_alone() -> None:
    base = {"name": "x", "data": {"text": "a"}}
    assert validate_recipe(base | {"averaging": {"overlap": 5, "frequency": 5}}).averaging.overlap == 5
    with pytest.raises(RecipeError, match=r"overlap is 3 and frequency is 2: .* must not be above frequency"):
        validate_recipe(base | {"averaging": {"overlap": 3, "frequency": 2}})
    for state in ("average", "reset"):
        with pytest.raises(RecipeError, match=f"overlap needs optimizer_state: keep, and it is {state}"):
            validate_recipe(base | {"averaging": {"overlap": 1, "optimizer_state": state}})


def test_a_recipe_that_is_written_out_stays_within_two_screens() -> None:
    def leaves(values: dict[str, object]) -> int:
        return sum(leaves(value) if isinstance(value, dict) else 1 for value in values.values())

    recipe: Recipe = load_recipe("python")
    assert leaves(recipe.model_dump()) <= 64


def test_workers_are_a_number_or_bounds_or_what_finds_room() -> None:
    base = {"name": "x", "data": {"text": "a"}}
    fixed = validate_recipe(base | {"averaging": {"workers": "3"}}).averaging
    elastic = validate_recipe(base | {"averaging": {"workers": {"max": 4}, "outer": "bmuf"}}).averaging
    auto = validate_recipe(base | {"averaging": {"workers": "auto", "outer": "nesterov"}}).averaging
    assert (fixed.fewest, fixed.most) == (3, 3)
    assert (auto.workers, auto.fewest, auto.outer_learning_rate) == ("auto", 1, 0.7)
    assert (elastic.fewest, elastic.most, elastic.outer_momentum) == (1, 4, 0.75)


@pytest.mark.parametrize(
    ("workers", "said"),
    [
        ({"min": 3, "max": 2}, "min is 3 and max is 2"),
        ({"min": 1}, '"averaging.workers.max" is missing'),
        ({"min": 1, "max": 2, "most": 3}, '"averaging.workers.most" is unknown'),
        ("many", "\"averaging.workers\" is 'many': give a number, bounds such as {min: 1, max: 4}, or auto"),
        ("-2", "\"averaging.workers\" is '-2': Input should be greater than 0"),
    ],
)
def test_bounds_of_workers_that_fit_nothing_are_named(workers: object, said: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(said)):
        validate_recipe({"name": "x", "data": {"text": "a"}, "averaging": {"workers": workers}})


def test_a_recipe_is_checked_without_torch() -> None:
    program = "import sys, rayrnn.recipe; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "False"


def test_what_a_recipe_can_choose_from_are_the_cells_and_outer_rules_that_there_are() -> None:
    sections = Recipe.model_json_schema()["$defs"]
    assert sections["Model"]["properties"]["cell"]["enum"] == list(CELLS)
    assert sections["Averaging"]["properties"]["outer"]["enum"] == list(RULES)


def test_what_is_said_of_data_without_a_place_is_of_a_programs_own() -> None:
    recipe = validate_recipe({"name": "x", "task": "tagging", "data": {"held_out": 0.3, "normalize": "standardize"}})
    assert (recipe.data.source, recipe.data.held_out) == ("given", 0.3)
    assert "dl4j" not in recipe.to_yaml()


def test_null_is_a_default_where_it_is_no_value_of_its_own() -> None:
    values = {
        "name": "x",
        "data": {"source": "csv", "path": "a", "known_ahead": None, "label_column": None},
        "seed": None,
    }
    recipe = validate_recipe(values | {"task": "tagging", "training": None, "model": {"hidden": None}})
    assert recipe.data.known_ahead == ()
    assert (recipe.seed, recipe.model.hidden, recipe.training.learning_rate) == (12345, 256, 0.002)
