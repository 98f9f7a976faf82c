"""Writes every page that is made from the code: `python -m docs.make`."""

from docs.make import MADE

for made in MADE:
    made.PAGE.write_text(made.page(), encoding="utf-8")
