"""README and docs/ tell what is so: every block runs or says why not, every link leads somewhere."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import pydantic
import pytest
import yaml

from rayrnn.recipe import Recipe
from tests.documents.pages import PAGES, ROOT, RUNNABLE, SHOWN, Block, blocks_of
from tests.documents.reader import Reader

BLOCKS = [block for page in PAGES for block in blocks_of(page)]
#: pages whose fast blocks take seconds; of every other page all blocks run in the slow suite
SHORT = [ROOT / "README.md", ROOT / "docs" / "recipes.md"]
SLOW = [page for page in PAGES if any(b.is_run and (b.slow or page not in SHORT) for b in blocks_of(page))]
LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(#[^)\s]*)?\)|<img src=\"([^\"]+)\"()")


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.fixture(scope="session")
def common_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of all pages that start no Ray themselves: one is up in it, so that no command waits for its own."""
    home = tmp_path_factory.mktemp("home")
    with ray_in(home, "rayrnn up --cpus 4"):
        yield home


@contextmanager
def ray_in(home: Path, command: str) -> Iterator[None]:
    """A home whose Ray is gone afterwards, whatever the page has done."""
    reader = Reader(home, home)
    reader.run(command, "the tests")
    try:
        yield
    finally:
        reader.run("rayrnn down", "the tests")


@pytest.fixture
def reader(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Reader]:
    """One whose page starts a Ray in its fast or slow blocks, as the test runs them, begins without one."""
    page: Path = request.getfixturevalue("page")
    is_slow = request.node.get_closest_marker("slow") is not None
    typed = [block.text for block in blocks_of(page) if block.is_run and (is_slow or not block.slow)]
    (tmp_path / "folder").mkdir()
    if not any("rayrnn up" in text for text in typed):
        yield Reader(tmp_path / "folder", request.getfixturevalue("common_home"))
        return
    (tmp_path / "home").mkdir()
    with ray_in(tmp_path / "home", "true"):
        yield Reader(tmp_path / "folder", tmp_path / "home")


@pytest.mark.parametrize("page", SHORT, ids=name)
def test_what_a_page_shows_runs(page: Path, reader: Reader) -> None:
    for block in blocks_of(page):
        if not block.slow:
            reader.follow(block)


@pytest.mark.slow
@pytest.mark.timeout(2400)
@pytest.mark.parametrize("page", SLOW, ids=name)
def test_what_a_page_shows_runs_with_its_slow_blocks(page: Path, reader: Reader) -> None:
    for block in blocks_of(page):
        reader.follow(block)


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_a_block_has_a_language_and_a_python_block_is_python(block: Block) -> None:
    assert block.language in (*RUNNABLE, *SHOWN, "before"), f"{block}: a block of {block.language!r} is nothing known"
    if block.language == "python":
        compile(block.text, str(block), "exec")
    if block.language == "console":
        assert block.commands


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.not_run is not None], ids=str)
def test_a_block_that_is_not_run_says_why(block: Block) -> None:
    assert block.not_run is not None
    assert len(block.not_run.split()) >= 3, f"{block}: `not run: {block.not_run}` is no reason"
    for path in re.findall(r"tests/[\w/.]+\w", block.not_run):
        assert (ROOT / path).exists(), f"{block}: {path} is not there"


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "yaml"], ids=str)
def test_what_a_page_shows_of_a_recipe_is_valid(block: Block) -> None:
    """A whole recipe, or some of its sections; another YAML file is left alone, and so is one with a module."""
    values = yaml.safe_load(block.text)
    if ":" in f"{values.get('task')}{values.get('data', {}).get('source')}":
        assert block.file is not None, f"{block} names a module: save it, and train with it"
        return
    if not set(values) <= set(Recipe.model_fields):
        assert "cluster_name" in values or "site_name" in values, f"{block}: neither a recipe nor a cluster file"
    elif {"name", "data"} <= set(values):
        Recipe.model_validate(values)
    else:
        for key, value in values.items():
            field = Recipe.model_fields[key]
            kind = Annotated[(field.annotation, *field.metadata, "of a recipe")]  # type: ignore[valid-type]
            pydantic.TypeAdapter(kind).validate_python(value)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for match in LINK.finditer(text):
        path, anchor = match[1] or match[3] or "", match[2]
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{name(page)} links to {path}"
        if anchor:
            assert anchor.removeprefix("#") in anchors(target), f"{name(page)} links to {path}{anchor}"


def anchors(page: Path) -> set[str]:
    """A page's headings, as the site and most viewers of Markdown name them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_readme_is_a_screen_and_a_half() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 140


def test_every_page_stands_in_the_sites_contents() -> None:
    listed = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert [page.name for page in PAGES if page.parent == ROOT / "docs" and page.name not in listed] == []


def test_the_example_of_a_network_is_the_one_that_is_tested() -> None:
    (block,) = [block for block in BLOCKS if block.file == "minimal_gru.py"]
    assert block.text == (ROOT / "examples" / "minimal_gru.py").read_text(encoding="utf-8")
