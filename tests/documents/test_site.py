"""The documents as a site: it builds without a complaint, and can be read without a network."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.documents.pages import PAGES, ROOT

#: what a browser loads by itself when it shows a page
LOADED = re.compile(
    r"<(?:script|img|iframe|source)[^>]*\ssrc=\"?(https?:[^\s\">]*)|<link[^>]*\shref=\"?(https?:[^\s\">]*)"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed: pip install rayrnn[docs]")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return folder


def test_every_page_is_there(site: Path) -> None:
    names = [page.stem for page in PAGES if page.parent == ROOT / "docs"]
    assert [name for name in names if not (site / f"{name}.html").exists()] == []
    assert (site / "search" / "search_index.json").exists()


def test_nothing_is_loaded_from_another_server(site: Path) -> None:
    loaded = {
        (page.name, *filter(None, found))
        for page in site.rglob("*.html")
        for found in LOADED.findall(page.read_text(encoding="utf-8"))
    }
    assert loaded == set()


#: of what stands in a picture, nothing that a browser fetches
NAMES_IN_SVG = {
    "http://www.w3.org/2000/svg",
    "http://www.w3.org/1999/xlink",
    "http://www.w3.org/Graphics/SVG/1.1/DTD/svg11.dtd",
}


def test_no_picture_loads_anything() -> None:
    for picture in (ROOT / "docs" / "pictures").glob("*.svg"):
        content = picture.read_text(encoding="utf-8")
        links = set(re.findall(r"https?://[^\s\"')]+", content))
        assert links <= NAMES_IN_SVG, picture
        assert all(place.startswith("#") for place in re.findall(r'href="([^"]*)"', content)), picture
