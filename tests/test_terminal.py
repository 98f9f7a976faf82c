"""Nothing that is not ours gives a terminal orders, and no error reaches a person as a traceback."""

import io
import os
import sys
from pathlib import Path

import pytest
import torch
from rich.console import Console
from rich.table import Table

from rayrnn.cli import main, models
from rayrnn.cluster.show import show_status
from rayrnn.cluster.status import ClusterStatus, LiveRun
from rayrnn.data.files import list_files
from rayrnn.errors import DataError, RecipeError, UsageError
from rayrnn.generation import Drawing, draw_symbols
from rayrnn.recipe import load_recipe
from rayrnn.runs.directory import create_run, open_run
from rayrnn.runs.layout import refuse_links
from rayrnn.terminal import Terminal
from rayrnn.training.screen import Screen
from rayrnn.wording import harmless
from tests.training.recipes import small

HOSTILE = {
    "\x1b]0;title\x07": r"\u001b]0;title\u0007",
    "\x1b[2J": r"\u001b[2J",
    "\x9b2J": r"\u009b2J",
    "a\rb\x08": r"a\u000db\u0008",
    "\u202egpj.exe": r"\u202egpj.exe",
    "\ud800": r"\ud800",
    "line\none\ttab": "line\none\ttab",
    "Grün 日本 🙂": "Grün 日本 🙂",
}
MARKS = ("[/x]", "[bold]", "[red]a[/red]", "[link=file:///etc]x", ":smile:", "[/]")


@pytest.mark.parametrize(("text", "shown"), HOSTILE.items())
def test_control_characters_are_shown_escaped(text: str, shown: str) -> None:
    assert harmless(text) == shown
    assert harmless(shown) == shown


@pytest.mark.parametrize("text", [*HOSTILE, *MARKS])
@pytest.mark.parametrize("where", ["a line", "a table", "a status", "a screen"])
def test_a_console_shows_what_others_say_letter_by_letter(text: str, where: str) -> None:
    out = io.StringIO()
    console = Terminal(file=out, width=200)
    if where == "a line":
        console.print(text)
    elif where == "a table":
        table = Table("head")
        table.add_row(text)
        console.print(table)
    elif where == "a status":
        run = LiveRun("01", text, 1, 2, (0,), 1)
        show_status(console, ClusterStatus("127.0.0.1:1", "rayrnn up", None, (), (), (run,)))
    else:
        Screen(Console(file=out, width=200), small()).warn(text)
    assert all(line in out.getvalue() for line in harmless(text).expandtabs(8).split("\n") if "\t" not in text)
    assert "\x1b" not in out.getvalue()


class TerminalStream(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("stream", "shown"), [(TerminalStream(), r"\u001b[31m"), (io.StringIO(), "\x1b[31m")])
def test_a_file_gets_data_as_they_are_and_a_terminal_does_not(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, shown: str
) -> None:
    monkeypatch.setattr(sys, "stdout", stream)
    models.give("\x1b[31m")
    assert stream.getvalue() == f"{shown}\n"


def ended(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["rayrnn", *arguments])
    with pytest.raises(SystemExit) as end:
        main()
    assert isinstance(end.value.code, int)
    return end.value.code


@pytest.mark.parametrize(
    "error", [KeyError("x"), MemoryError(), RecursionError("deep\nand more"), OSError(5, "\x1b[2J")]
)
@pytest.mark.parametrize("writable", [True, False])
def test_an_error_that_is_not_ours_is_one_sentence_and_the_place_of_its_traceback(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    error: Exception,
    writable: bool,
) -> None:
    def fail() -> None:
        raise error

    state = tmp_path / "state"
    if not writable:
        state.write_text("no directory")
    monkeypatch.setenv("XDG_STATE_HOME", str(state))
    monkeypatch.setattr("rayrnn.recipe.shipped_recipes", fail)
    assert ended(monkeypatch, "recipes") == 1
    said = capfd.readouterr().err
    assert said.startswith(f"error: rayrnn failed: {type(error).__name__}")
    assert "Traceback" not in said
    assert "\x1b[2J" not in said
    if writable:
        log = Path(said.strip().rpartition("its traceback is in ")[2])
        assert type(error).__name__ in log.read_text()
    else:
        assert "--debug" in said
    assert ended(monkeypatch, "recipes", "--debug") == 1
    assert "Traceback" in capfd.readouterr().err


def test_errors_of_ours_reach_the_terminal_without_orders(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "a.yaml").write_text('name: "\\e[2J"\n"\\e[31m": 1\n')
    assert ended(monkeypatch, "train", str(tmp_path / "a.yaml")) == 2
    said = capfd.readouterr().err
    assert "\x1b" not in said
    assert r"\u001b[31m" in said


@pytest.mark.parametrize("share", [1e-300, 1e-45, 1e-8, 0.5])
def test_the_likeliest_symbol_is_drawn_however_small_top_p_is(share: float) -> None:
    drawn = draw_symbols(torch.zeros(5, 3), Drawing(top_p=share), torch.Generator().manual_seed(0))
    assert drawn.shape == (5,)


@pytest.mark.parametrize("name", ["x" * 300, "a/" * 3000, "a\x00b"])
def test_a_name_that_no_directory_can_have_is_refused(tmp_path: Path, name: str) -> None:
    for use in (create_run, open_run):
        with pytest.raises(UsageError, match=r"cannot be a run directory|is no run|cannot be written to"):
            use(tmp_path / name)
    with pytest.raises(RecipeError):
        load_recipe(name)


@pytest.mark.parametrize("setting", ["bounds=1", "data[0]=x", "str=1", "data.str=1", "model.constrained-str=1", "[=1"])
def test_a_key_that_is_called_like_a_type_is_unknown(setting: str) -> None:
    with pytest.raises(RecipeError, match="is unknown"):
        load_recipe("python", [setting])


def test_what_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(DataError, match="is no file but a pipe, a socket or a device"):
            list_files(str(path))
    (tmp_path / "recipe.yaml").symlink_to("/dev/zero")
    with pytest.raises(RecipeError, match="a device, no file"):
        load_recipe(tmp_path / "recipe.yaml")


def test_a_run_is_not_written_into_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "train.log")
    with pytest.raises(UsageError, match=r"train\.log is a named pipe"):
        refuse_links(tmp_path)
