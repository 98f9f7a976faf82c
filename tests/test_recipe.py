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


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("model: {hiden: 3}", r'recipe.yaml:3: recipe key "model.hiden" is unknown; did you mean "hidden"\?'),
        ("averging: {}", r'recipe key "averging" is unknown; did you mean "averaging"\?'),
        ("model: {hidden: many}", r'recipe.yaml:3: recipe key "model.hidden" is .many.: .*valid integer'),
        ("model: {hidden: 0}", r'recipe key "model.hidden" is 0: .*greater than 0'),
        ("training: {learning_rate: -1}", r'"training.learning_rate" is -1: .*greater than 0'),
        ("training: {learning_rate: .nan}", r'"training.learning_rate" is nan: .*finite'),
        ("model: {cell: lsmt}", r"'rnn', 'lstm', 'gru' or 'graves_lstm'"),
        ("averaging: {wire: int4}", r"'float32', 'bfloat16' or 'int8'"),
        ("model: {bidirectional: sum}", "must not see the symbol it predicts"),
        ("name: ../outside", r'"name" is .../outside'),
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
        ({"name": "x"}, 'key "data" is missing'),
        ({"name": "x", "data": {}}, "data.path or data.text"),
        ({"name": "x", "data": {"path": "a", "text": "b"}}, "data.path or data.text"),
        ({"name": "x", "data": {"source": "exel", "path": "a"}}, "data.source 'exel' is unknown"),
        ({"name": "x", "data": {"text": "a", "held_out": 1.5}}, "held_out"),
        ({"name": "x", "data": {"text": "a"}, "task": "tagging"}, "no labels for tagging"),
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


def test_the_recipe_has_about_thirty_leaves() -> None:
    def leaves(values: dict[str, object]) -> int:
        return sum(leaves(value) if isinstance(value, dict) else 1 for value in values.values())

    recipe: Recipe = load_recipe("python")
    assert leaves(recipe.model_dump()) <= 50


def test_workers_are_a_number_or_bounds() -> None:
    base = {"name": "x", "data": {"text": "a"}}
    fixed = validate_recipe(base | {"averaging": {"workers": "3"}}).averaging
    elastic = validate_recipe(base | {"averaging": {"workers": {"max": 4}, "outer": "bmuf"}}).averaging
    assert (fixed.fewest, fixed.most) == (3, 3)
    assert (elastic.fewest, elastic.most, elastic.outer_momentum) == (1, 4, 0.75)


@pytest.mark.parametrize(
    ("workers", "said"),
    [
        ({"min": 3, "max": 2}, "min is 3 and max is 2"),
        ({"min": 1}, '"averaging.workers.max" is missing'),
        ({"min": 1, "max": 2, "most": 3}, '"averaging.workers.most" is unknown'),
        ("many", "\"averaging.workers\" is 'many'"),
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
