"""`python -m rayrnn.cli` is `rayrnn`."""

from rayrnn.cli import main

main()
