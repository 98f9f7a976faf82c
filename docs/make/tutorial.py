"""Runs docs/tutorial.ipynb, so that whoever only reads it sees what comes out: `python -m docs.make.tutorial`."""

import tempfile
from pathlib import Path

import nbclient
import nbformat

NOTEBOOK = Path(__file__).parent.parent / "tutorial.ipynb"
SECONDS_A_CELL = 300


def executed(folder: Path) -> nbformat.NotebookNode:
    """The notebook as it is after all of its cells have run in this directory.

    Raises:
        nbclient.exceptions.CellExecutionError: a cell has failed.
    """
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        notebook,
        timeout=SECONDS_A_CELL,
        kernel_name="python3",
        coalesce_streams=True,
        resources={"metadata": {"path": str(folder)}},
    )
    return client.execute()


def main() -> None:
    """Put the outputs beside the cells, without the times of the cells and what libraries say of this machine."""
    with tempfile.TemporaryDirectory() as folder:
        notebook = executed(Path(folder))
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if not _is_warning(output)]
    nbformat.write(notebook, NOTEBOOK)


def _is_warning(output: nbformat.NotebookNode) -> bool:
    return output.get("name") == "stderr" and "Warning: " in output["text"]


if __name__ == "__main__":
    main()
