"""docs/pictures/report.png: the upper part of a report, as Chromium shows it, of a run that is trained for it.

python -m docs.make.report_picture    (a minute or more on two cores; from the checkout's folder)
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from docs.make.browser import opened

PICTURES = Path(__file__).parent.parent / "pictures"
#: a run that is short, and yet has curves to look at
SET = ("averaging.workers=2", "averaging.rounds=24", "model.hidden=32", "training.evaluate_every=2")
WIDTH, HEIGHT = 1080, 1080


def main() -> None:
    """Train, report, and take the picture."""
    with tempfile.TemporaryDirectory() as folder:
        _type("train", "python", *(word for key in SET for word in ("--set", key)), folder=folder)
        _type("report", "runs/python", "--no-answers", folder=folder)
        with opened(Path(folder, "report.html").as_uri(), WIDTH, HEIGHT) as page:
            page.screenshot(path=PICTURES / "report.png")


def _type(*arguments: str, folder: str) -> None:
    subprocess.run([sys.executable, "-m", "rayrnn.cli", *arguments], cwd=folder, check=True)


if __name__ == "__main__":
    main()
