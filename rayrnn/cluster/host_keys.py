"""Whether a host is the one that it says: SSH host keys that are known, new, or others than before.

ssh itself checks them, against the user's own known hosts and those that the user has accepted with
`--accept-new-hosts`, which this machine keeps in a file of its own. What is here finds out what ssh was shown.
"""

import base64
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from rayrnn.cluster.local_head import state_folder
from rayrnn.durable import replace_durably
from rayrnn.wording import command_line

#: the system's own
SYSTEM_FILES = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
#: what ssh calls the ways to sign with keys of this kind
ALGORITHMS = {"ssh-rsa": "rsa-sha2-512,rsa-sha2-256"}
#: takes any key, tells it to a file, and shows no secret: nobody logs in
ASK_FOR_KEY = {
    "StrictHostKeyChecking": "accept-new",
    "GlobalKnownHostsFile": os.devnull,
    "HashKnownHosts": "no",
    "PreferredAuthentications": "none",
    "PubkeyAuthentication": "no",
    "ControlPath": "none",
}
#: Ray's launcher checks no key; it finds this first where it looks for ssh
CHECKING_SSH = """#!/bin/sh
# Where Ray's launcher would take any key of a host, only those are taken that the file beside this one knows.
here=$(cd "$(dirname "$0")" && pwd)
IFS=:
for folder in $PATH; do
    [ "$folder/ssh" -ef "$here/ssh" ] || [ ! -x "$folder/ssh" ] || break
done
unset IFS
case " $* " in
*" StrictHostKeyChecking=no "*)
    set -- -o "UserKnownHostsFile=\\"$here/known_hosts\\"" -o GlobalKnownHostsFile=/dev/null "$@"
    set -- -o StrictHostKeyChecking=yes "$@"
    ;;
esac
exec "$folder/ssh" "$@"
"""


@dataclass(frozen=True)
class HostKey:
    """A host's public key."""

    #: ssh-ed25519, ecdsa-sha2-nistp256, ssh-rsa ...
    kind: str
    #: base64
    key: str
    #: @cert-authority or @revoked, as a file of known hosts marks it
    marker: str = ""

    def __str__(self) -> str:
        """As ssh and ssh-keygen print it."""
        digest = hashlib.sha256(base64.b64decode(self.key)).digest()
        return f"{self.kind} SHA256:{base64.b64encode(digest).decode().rstrip('=')}"

    def line(self, names: Iterable[str]) -> str:
        """Of a file of known hosts."""
        return " ".join([*([self.marker] if self.marker else []), ",".join(names), self.kind, self.key])


@dataclass(frozen=True)
class KeyFault:
    """Why ssh does not talk to a host, and what to do about it."""

    what: str
    fix: str


@dataclass(frozen=True)
class _Lookup:
    """Where ssh looks for a host's key, and under which name."""

    name: str
    files: tuple[str, ...]


def accepted_file() -> Path:
    """The hosts that the user has accepted with `--accept-new-hosts`."""
    return state_folder() / "known_hosts"


def known_hosts_files() -> str:
    """The value of ssh's GlobalKnownHostsFile, beside which the user's own files count."""
    return f'{" ".join(SYSTEM_FILES)} "{accepted_file()}"'


def known_keys(target: str, options: Sequence[str]) -> list[HostKey]:
    """What is known of a host by the name that ssh uses.

    Args:
        target: user@address
        options: of ssh
    """
    lookup = _lookup(target, options)
    return [key for file in lookup.files for key in _keys_in(file, lookup.name)]


def accept(target: str, options: Sequence[str]) -> HostKey | None:
    """Take a host's key for the right one from now on, unless one is known; the key, if that was done."""
    if known_keys(target, options) or (key := _offered(target, options, ())) is None:
        return None
    path = accepted_file()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with FileLock(path.with_name("known_hosts.lock")):
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        replace_durably(path, f"{before}{key.line([_lookup(target, options).name])}\n".encode(), mode=0o600)
    return key


def find_fault(target: str, options: Sequence[str]) -> KeyFault | None:
    """Why ssh refuses a host's key; None where it does not, or the host shows none."""
    known = known_keys(target, options)
    plain = [key for key in known if not key.marker]
    offered = _offered(target, options, {key.kind for key in plain})
    if offered is None or offered in plain or len(known) > len(plain):
        return None
    if not known:
        path = f"/etc/ssh/ssh_host_{offered.kind.split('-')[1 if offered.kind.startswith('ssh-') else 0]}_key.pub"
        return KeyFault(
            f"its SSH key is not known on this machine: {offered}",
            f"compare that with `ssh-keygen -lf {path}` on the host itself, then `rayrnn up FILE --accept-new-hosts` "
            "(or `rayrnn doctor FILE --accept-new-hosts`) takes it for the right one",
        )
    lookup = _lookup(target, options)
    holders = [file for file in lookup.files if list(_keys_in(file, lookup.name))]
    commands = ", ".join(f"`{command_line('ssh-keygen', '-R', lookup.name, '-f', file)}`" for file in holders)
    return KeyFault(
        f"its SSH key is another than before: {offered}, known is {', '.join(map(str, plain))}",
        "somebody may be in between, and nothing was sent; if you know why it has changed (a host that was installed "
        f"anew), {commands} forgets the old one",
    )


def write_checking_ssh(folder: Path, hosts: Iterable[tuple[Sequence[str], Sequence[HostKey]]]) -> bool:
    """Put an `ssh` into a folder that takes these hosts' keys and no other where Ray's launcher calls it.

    Args:
        hosts: the names of each, and its keys.

    Returns:
        whether other keys were there before.
    """
    text = "".join(f"{key.line(names)}\n" for names, keys in hosts for key in keys)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    known, program = folder / "known_hosts", folder / "ssh"
    same = known.exists() and known.read_text(encoding="utf-8") == text
    replace_durably(known, text.encode(), mode=0o600)
    replace_durably(program, CHECKING_SSH.encode(), mode=0o700)
    return not same


def lookup_name(target: str, options: Sequence[str]) -> str:
    """By which ssh looks for a host's key."""
    return _lookup(target, options).name


def _lookup(target: str, options: Sequence[str]) -> _Lookup:
    """As ssh's own settings have it, which may give a host another name or port."""
    said = subprocess.run(["ssh", "-G", *options, target], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    settings = {key: value for key, _, value in (line.partition(" ") for line in said.stdout.splitlines())}
    host = settings.get("hostkeyalias") or settings.get("hostname") or target.rpartition("@")[2]
    port = settings.get("port", "22")
    name = host if port == "22" or settings.get("hostkeyalias") else f"[{host}]:{port}"
    files = settings.get("userknownhostsfile", "").split()
    return _Lookup(name, (*files, *SYSTEM_FILES, str(accepted_file())))


def _keys_in(file: str, name: str) -> Iterator[HostKey]:
    command = ["ssh-keygen", "-F", name, "-f", os.path.expanduser(file)]
    for line in subprocess.run(command, capture_output=True, text=True).stdout.splitlines():
        words = line.split()
        marker = words.pop(0) if words and words[0].startswith("@") else ""
        if not line.startswith("#") and len(words) >= 3:
            yield HostKey(words[1], words[2], marker)


def _offered(target: str, options: Sequence[str], kinds: Iterable[str]) -> HostKey | None:
    """The key that a host shows, of one of these kinds if any are named; None where none comes."""
    with tempfile.TemporaryDirectory(prefix="rayrnn-key-") as folder:
        file = Path(folder) / "shown"
        settings = ASK_FOR_KEY | {"UserKnownHostsFile": f'"{file}"'}
        if algorithms := [ALGORITHMS.get(kind, kind) for kind in sorted(kinds)]:
            settings["HostKeyAlgorithms"] = ",".join(algorithms)
        # of two values of one option ssh takes the first
        first = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        subprocess.run(["ssh", *first, *options, target, "true"], capture_output=True, stdin=subprocess.DEVNULL)
        if not file.exists():
            return None
        _, kind, key, *_ = file.read_text(encoding="utf-8").split()
        return HostKey(kind, key)
