"""The references are what the code says now."""

from types import ModuleType

import pytest

from docs.make import MADE, recipe_reference
from rayrnn.recipe import Recipe


@pytest.mark.parametrize("made", MADE, ids=lambda made: str(made.PAGE.name))
def test_a_page_that_is_made_from_the_code_is_up_to_date(made: ModuleType) -> None:
    assert made.PAGE.read_text(encoding="utf-8") == made.page(), "`make docs` writes it anew"


def test_the_recipe_reference_has_every_section_and_source() -> None:
    page = recipe_reference.page()
    assert all(f"\n## {section}\n" in page for section in ("data", *recipe_reference.SECTIONS))
    assert all(f"### data, source: {source}\n" in page for source in ("text", "csv", "parquet", "spark"))
    assert set(Recipe.model_fields) == {"name", "task", "data", *recipe_reference.SECTIONS, "seed", "track"}


def test_a_keys_meaning_is_the_comment_above_its_field() -> None:
    meanings = recipe_reference.field_meanings(recipe_reference.class_of("training"))
    assert meanings["batch_size"] == "sequences in one minibatch on one worker"


def test_every_key_says_what_it_means() -> None:
    lines = recipe_reference.page().splitlines()
    assert [line for line in lines if line.startswith("| `") and line.endswith("|  |")] == []
