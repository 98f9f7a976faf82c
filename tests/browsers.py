"""A browser without a window, for tests of pages."""

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, by Playwright."""
    pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
    from docs.make.browser import chromium, program

    if program() is None:
        pytest.skip("there is no Chromium on this machine")
    with chromium() as running:
        yield running
