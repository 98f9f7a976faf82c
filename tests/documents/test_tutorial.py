"""The tutorial is a notebook whose cells run, in their order, in an empty directory."""

from pathlib import Path

import nbformat
import pytest

from docs.make.tutorial import NOTEBOOK, executed
from tests.reporting.pages import Page


def said_by(cell: nbformat.NotebookNode) -> str:
    """What a reader sees below a cell, without markup."""
    said = []
    for output in cell.get("outputs", []):
        data = output.get("data", {})
        said += [output.get("text", ""), data.get("text/plain", "")]
        said += [Page(data["text/html"]).text] if "text/html" in data else []
    return "\n".join(said)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_tutorial_runs(tmp_path: Path) -> None:
    cells = {cell.id: said_by(cell) for cell in executed(tmp_path).cells if cell.cell_type == "code"}
    told = list(cells.values())
    assert "Finished." in told[2], "the outcome"
    assert "regression, 1 x 32 lstm, 20 of 20 rounds" in told[3]
    assert "R2" in told[4]
    assert "299" in told[5], "a forecast at every step"
    assert "'step': 299" in told[6]
    assert "machine-42" in told[7], "the fault is found"
    assert "machine-40" not in told[7], "and nothing else"
    step = int(told[8].split()[1].rstrip(":"))
    assert 200 <= step < 215
    assert "Der Cottbuser Postkutscher putzt" in told[9]


def test_what_comes_out_stands_beside_the_cells() -> None:
    """Whoever reads the notebook on a page sees it."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    silent = [cell.id for cell in notebook.cells if cell.cell_type == "code" and "outputs" not in cell]
    assert silent == []
    assert "Finished." in said_by(notebook.cells[6])
    assert "site-packages" not in NOTEBOOK.read_text(encoding="utf-8"), "nothing of the machine that ran it"
