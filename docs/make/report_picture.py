"""docs/pictures/report.png: the upper part of a report, as Chromium shows it, of a run that is trained for it.

python -m docs.make.report_picture    (a minute or more on two cores; from the checkout's folder)
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

PICTURES = Path(__file__).parent.parent / "pictures"
#: a run that is short, and yet has curves to look at
SET = ("averaging.workers=2", "averaging.rounds=24", "model.hidden=32", "training.evaluate_every=2")
WIDTH, HEIGHT = 1080, 1080
OPTIONS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")


def main() -> None:
    """Train, report, and take the picture."""
    with tempfile.TemporaryDirectory() as folder:
        _type("train", "python", *(word for key in SET for word in ("--set", key)), folder=folder)
        _type("report", "runs/python", "--no-answers", folder=folder)
        _photograph(Path(folder) / "report.html", PICTURES / "report.png")


def _type(*arguments: str, folder: str) -> None:
    subprocess.run([sys.executable, "-m", "rayrnn.cli", *arguments], cwd=folder, check=True)


def _photograph(page: Path, picture: Path) -> None:
    place = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    assert place is not None, "there is no Chromium on this machine"
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=place, args=list(OPTIONS))
        view = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        view.goto(page.as_uri())
        view.screenshot(path=picture)
        browser.close()


if __name__ == "__main__":
    main()
