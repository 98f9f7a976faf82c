"""The token that everyone who talks to Ray must show: one file, readable by its owner alone."""

import os
import secrets
import tempfile
from pathlib import Path

from rayrnn.errors import ClusterError


def ensure_token() -> Path | None:
    """The path of this user's Ray token, created with mode 0600 or narrowed to it (Ray itself would write it 0644).

    None when RAY_AUTH_TOKEN carries the token: then no file has it.

    Raises:
        ClusterError: the file can be neither read nor written.
    """
    if os.environ.get("RAY_AUTH_TOKEN"):
        return None
    path = token_path()
    try:
        if not _has_token(path):
            _create(path)
        path.chmod(0o600)
    except OSError as error:
        raise ClusterError(f"Ray's token file {path} cannot be used: {error}") from None
    return path


def token_path() -> Path:
    """Where Ray looks for the token: RAY_AUTH_TOKEN_PATH, or ~/.ray/auth_token."""
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return Path(named) if named else Path.home() / ".ray" / "auth_token"


def _has_token(path: Path) -> bool:
    return path.exists() and bool(path.read_text(encoding="utf-8").strip())


def _create(path: Path) -> None:
    """Write a token beside the path and move it there, so that no reader ever meets half of one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=path.parent)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(32))
    os.replace(draft, path)
