"""Queries that a run wrote, run on the database that they are for: do they give what the true queries give?

    python benchmarks/questions.py geography.json geography.sqlite compared.csv

The third file is what `rayrnn evaluate RUN --data test.tsv --out compared.csv` wrote for the test part of the question
split. Each question's own names are put back into both queries before they are run. Exact match is of the queries with
names left open, as the answers are.
"""

import csv
import json
import sqlite3
import sys
from collections import defaultdict
from pathlib import Path


def main(questions: Path, database: Path, compared: Path) -> None:
    """Print how many queries are the same, and how many give the same."""
    with compared.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    names = _names(questions)
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    exact = same = 0
    for row in rows:
        own = names[row["input"], row["truth"]].pop()
        exact += row["answer"] == row["truth"]
        truth, answer = (_result(connection, _filled(row[key], own)) for key in ("truth", "answer"))
        same += truth is not None and truth == answer
    print(f"{len(rows)} questions: exact match {exact / len(rows):.3f}, execution match {same / len(rows):.3f}")


def _names(questions: Path) -> dict[tuple[str, str], list[dict[str, str]]]:
    """By question and query: the names of every sentence of the test part."""
    found: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for entry in json.loads(questions.read_text(encoding="utf-8")):
        for sentence in entry["sentences"]:
            if sentence["question-split"] == "test":
                found[sentence["text"], entry["sql"][0]].append(sentence["variables"])
    return found


def _filled(query: str, names: dict[str, str]) -> str:
    for variable in sorted(names, key=len, reverse=True):
        query = query.replace(variable, names[variable])
    return query


def _result(connection: sqlite3.Connection, query: str) -> list[tuple[object, ...]] | None:
    """The rows that a query gives, in whatever order; None where it cannot be run."""
    try:
        return sorted(connection.execute(query).fetchall(), key=repr)
    except sqlite3.Error:
        return None


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
