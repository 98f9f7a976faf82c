"""A network of one's own is found by its name."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rayrnn.errors import RecipeError, UsageError
from rayrnn.models.own import find_own, name_of
from tests.models.test_contract import Good

MODULE = """
import torch

class Net(torch.nn.Module):
    size = {size}

def make():
    return Net()

number = 3
"""
#: of the modules that these tests write
NAMES = {"mine", "theirs"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, which Python does not look into by itself; its modules are forgotten after the test."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", ".")])
    yield tmp_path
    for module in [module for module in sys.modules if module.partition(".")[0] in NAMES]:
        del sys.modules[module]


def test_a_network_has_the_name_that_a_package_gave_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "theirs.py").write_text(MODULE.format(size=5))
    information = here / "theirs-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text("[rayrnn.networks]\nquick = theirs:Net\n")
    monkeypatch.syspath_prepend(here)
    own = find_own("quick")
    assert (own.name, own.place) == ("quick", "theirs:Net")
    with pytest.raises(RecipeError, match=r"model\.network 'slow' is unknown: the installed packages offer quick"):
        find_own("slow")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mine:number", r"mine:number is 3; it must be a class of torch\.nn\.Module, or a function"),
        ("os:system", r"os:system is <built-in function system>; it must be"),
        ("subprocess:Popen", r"subprocess:Popen is <class 'subprocess\.Popen'>; it must be"),
    ],
)
def test_what_is_no_network_is_told(here: Path, name: str, words: str) -> None:
    (here / "mine.py").write_text(MODULE.format(size=7))
    with pytest.raises(RecipeError, match=words):
        find_own(name)


def test_a_class_has_a_name_only_where_it_is_found_again() -> None:
    class Inner(torch.nn.Module):
        pass

    assert name_of(Good) == "tests.models.test_contract:Good"
    for nameless in (Inner, lambda: Good(1, 1), Good(1, 1)):
        with pytest.raises(UsageError, match="cannot be found again by a name"):
            name_of(nameless)


@pytest.mark.parametrize(("name", "meant"), [("good.Good", "good:Good"), ("parts.gru.Net", "parts.gru:Net")])
def test_a_point_in_the_place_of_the_colon_is_seen(name: str, meant: str) -> None:
    with pytest.raises(RecipeError, match=f'one of your own is package.module:Name; did you mean "{meant}"'):
        find_own(name)
