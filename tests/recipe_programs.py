"""The program in a shipped recipe's comment, which lays out the public data that it learns from."""

from rayrnn.recipe import shipped_recipes


def program_of(recipe: str) -> str:
    """Its lines, which stand behind `#   `."""
    comment = shipped_recipes()[recipe].partition("# Then:")[0]
    return "\n".join(line.removeprefix("#   ") for line in comment.splitlines() if line.startswith("#   "))


def laid_out(recipe: str, *, value: str = "", other: str = "") -> None:
    """Run it in the current directory, with another value in the place of one that stands in it."""
    program = program_of(recipe)
    assert value in program
    exec(compile(program.replace(value, other), recipe, "exec"), {})
