"""Every error a user can meet, as one tree; the command line turns each branch into its exit code.

    RayrnnError            exit code
    ├── RunError           1   the run failed: NaN loss, a dead worker, an unreadable checkpoint
    ├── UsageError         2   a command, an option or an argument is wrong
    │   └── RecipeError    2   the recipe is wrong: unknown key, wrong type, out of range
    ├── DataError          3   the data is wrong: missing, empty, not UTF-8, shorter than one sequence
    ├── ClusterError       4   no cluster, too few CPUs, a launcher that failed
    └── Interrupted        130 stopped by the user; the checkpoint is written

A message says what is wrong, the value seen, where, and what to do next.
"""


class RayrnnError(Exception):
    """The user can mend this; the message says how."""

    exit_code = 1


class RunError(RayrnnError):
    """The run failed, or what is stored of it cannot be used."""

    exit_code = 1


class UsageError(RayrnnError):
    """A command, an option or an argument does not fit."""

    exit_code = 2


class RecipeError(UsageError):
    """The recipe has an unknown key, a value of the wrong type, or one out of range."""


class DataError(RayrnnError):
    """The data is missing, malformed or too small for the recipe."""

    exit_code = 3


class ClusterError(RayrnnError):
    """There is no cluster to work on, or it cannot hold what was asked of it."""

    exit_code = 4


class Interrupted(RayrnnError):
    """The user stopped the run; a checkpoint was written.

    Args:
        resume: the command that goes on from it, where there is something to go on from.
    """

    exit_code = 130

    def __init__(self, message: str, *, resume: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.resume = resume

    def __str__(self) -> str:
        return f"{self.message}\ngo on with: {self.resume}" if self.resume else self.message
