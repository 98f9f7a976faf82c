"""Puts rayrnn on a host: `python3 install.py install VENV BUILD WHEEL PACKAGE...`, or `... point VENV PYTHON`.

Needs nothing but Python's own library, and any Python 3 from 3.7 on, as rayrnn/cluster/on_host/facts.py does.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from contextlib import suppress

#: what a venv has of rayrnn: the build, then the packages that came with it, a line each
RECORD = "rayrnn-build"


def main(verb: str, venv: str, arguments: list[str]) -> int:
    """Do it for the venv, one at a time."""
    venv = os.path.expanduser(venv)
    os.makedirs(os.path.dirname(venv), exist_ok=True)
    with open(os.path.join(os.path.dirname(venv), "lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # hosts may share their home
        return install(venv, *arguments) if verb == "install" else point(venv, *arguments)


def install(venv: str, build: str, wheel: str, *packages: str) -> int:
    """Have this `build` of rayrnn in the venv, and the packages as pip takes them, unless they are there."""
    if os.path.islink(venv):
        os.unlink(venv)
    record = os.path.join(venv, RECORD)
    there = _lines(record)
    if there[:1] == [build] and set(packages) <= set(there):
        return 0
    python = os.path.join(venv, "bin", "python")
    if not os.path.exists(python):
        # with the packages that the host has anyway: a Ray or a torch that fits is not fetched again
        subprocess.run([sys.executable, "-m", "venv", "--system-site-packages", venv], check=True)
    wheel = os.path.expanduser(wheel)
    # the setuptools that venv brings is too old for torch, and hides the host's
    steps = [["uninstall", "--yes", "setuptools"], ["install", wheel, *packages]]
    for step in [*steps, ["install", "--no-deps", "--force-reinstall", wheel]]:
        # where packages come from is the host's own matter: pip's configuration there says it
        pip = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", *step]
        ended = subprocess.run(pip, stderr=subprocess.PIPE, text=True)
        if ended.returncode:
            print(ended.stderr, "rayrnn could not be installed on this host", sep="", file=sys.stderr)
            return ended.returncode
    _write_command(os.path.join(venv, "bin", "ray"), python)
    with open(record, "w") as file:
        file.write("\n".join([build, *packages]) + "\n")
    return 0


def point(venv: str, python: str) -> int:
    """Have the venv be where a Python of the host lies that has rayrnn already."""
    prefix = os.path.dirname(os.path.dirname(os.path.abspath(os.path.expanduser(python))))
    if os.path.isdir(venv) and not os.path.islink(venv):
        shutil.rmtree(venv)
    draft = venv + ".draft"
    os.symlink(prefix, draft)
    os.replace(draft, venv)
    return 0


def _write_command(path: str, python: str) -> None:
    """Where Ray itself is the host's, there is no such command in the venv."""
    if not os.path.exists(path):
        with open(path, "w") as file:
            file.write(f'#!/bin/sh\nexec "{python}" -m ray.scripts.scripts "$@"\n')
        os.chmod(path, 0o755)


def _lines(path: str) -> list[str]:
    with suppress(OSError), open(path) as file:
        return file.read().splitlines()
    return []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
