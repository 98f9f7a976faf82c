"""The cluster file: Ray's own cluster-launcher YAML, checked against Ray's own schema, every fault with its line."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from rayrnn.cluster.environment import quiet_ray
from rayrnn.cluster.ray_internals import complete_launcher_config, launcher_providers, launcher_schema
from rayrnn.errors import ClusterError
from rayrnn.foreign import check_yaml, read_plain
from rayrnn.wording import did_you_mean, line_of, path_of, shortened

#: the way down to a value: keys of mappings and numbers in lists
Keys = Sequence[str | int]
#: of a cluster file
MOST_BYTES = 2**20
#: a name that folders and files can be called by, on every host
PLAIN_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
#: keys that Ray refuses where the hosts are listed by hand
NOT_FOR_LOCAL = ("available_node_types", "head_node", "worker_nodes")


@dataclass(frozen=True)
class ClusterFile:
    """What a cluster file asks for; Ray reads the file itself for everything else."""

    path: Path
    name: str
    #: local (hosts over SSH), aws, gcp, azure ...
    provider: str
    #: host names or addresses, the head first; empty where a cloud decides
    hosts: tuple[str, ...]
    ssh_user: str | None
    #: at most this many hosts beside the head
    max_workers: int
    #: what it names on this machine: key -> path
    local_files: dict[str, str]
    #: the whole of it, as the user wrote it
    config: dict[str, Any]
    #: with Ray's own defaults for what the user left out
    complete: dict[str, Any]

    @property
    def auth(self) -> dict[str, Any]:
        """How to log in on the hosts; a cloud may add a key of its own."""
        auth: dict[str, Any] = self.complete["auth"]
        return auth


def read_cluster_file(path: Path) -> ClusterFile:
    """Read and check a cluster file.

    Raises:
        ClusterError: it cannot be read, is no YAML, or does not fit Ray's schema; names every fault with its line.
    """
    path = path_of(path)
    text = _read(path)
    config = _parse(path, text)
    faults = list(_faults(config))
    if faults:
        raise ClusterError("\n".join(f"{path}:{line_of(keys, text) or 1}: {what}" for keys, what in faults))
    complete = _complete(path, config)
    provider = config["provider"]
    return ClusterFile(
        path=path,
        name=config["cluster_name"],
        provider=provider["type"],
        hosts=(provider["head_ip"], *provider["worker_ips"]) if "head_ip" in provider else (),
        ssh_user=config.get("auth", {}).get("ssh_user"),
        max_workers=complete["max_workers"],
        local_files=_local_files(config),
        config=config,
        complete=complete,
    )


def _read(path: Path) -> str:
    try:
        return read_plain(path, most=MOST_BYTES).decode("utf-8")
    except FileNotFoundError:
        raise ClusterError(f"there is no cluster file {path}; cluster.yaml in rayrnn's repository is a start") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ClusterError(f"cluster file {path} cannot be read: {error}") from None


def _parse(path: Path, text: str) -> dict[str, Any]:
    try:
        check_yaml(text)
        config = yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ClusterError(f"{path}:{line}: not valid YAML: {error.problem}") from None
    except Exception as error:  # not every fault in a value, such as a date of 99 months, is a YAMLError
        raise ClusterError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(config, dict):
        raise ClusterError(
            f"{path}:1: a cluster file is a mapping of keys such as `provider:`, not {shortened(config)}"
        )
    return config


def _faults(config: dict[str, Any]) -> Iterator[tuple[Keys, str]]:
    """Where and what, for everything that Ray would refuse."""
    # Ray takes this one out before it looks at its schema
    known = {key: value for key, value in config.items() if key != "min_workers"}
    if unnamed := list(_key_faults(config, [])):  # by which no schema can be asked
        yield from unnamed
        return
    broken = False
    for error in jsonschema.Draft7Validator(launcher_schema()).iter_errors(known):
        broken = True
        yield from _describe(error)
    if not broken:
        yield from _name_faults(config)
        yield from _provider_faults(config)
        yield from _ssh_faults(config)


def _key_faults(value: Any, keys: Keys) -> Iterator[tuple[Keys, str]]:
    """Keys that YAML reads as a number, a date, a boolean or nothing."""
    if isinstance(value, list):
        for place, part in enumerate(value):
            yield from _key_faults(part, [*keys, place])
    elif isinstance(value, dict):
        for key, part in value.items():
            if not isinstance(key, str):
                where = f" in {_dotted(keys)}" if keys else ""
                yield keys, f"key {str(key)[:200]}{where} is no text: put quotes around it"
            yield from _key_faults(part, [*keys, str(key)])


def _describe(error: jsonschema.ValidationError) -> Iterator[tuple[Keys, str]]:
    keys = list(error.absolute_path)
    if error.validator == "additionalProperties":
        allowed = error.schema.get("properties", {})
        for unknown in [key for key in error.instance if key not in allowed]:
            yield [*keys, unknown], f"key {_dotted([*keys, unknown])} is unknown{did_you_mean(unknown, allowed)}"
    elif error.validator == "required":
        missing = [key for key in error.validator_value if key not in error.instance]
        yield from ((keys, f"key {_dotted([*keys, key])} is missing") for key in missing)
    else:
        yield keys, f"key {_dotted(keys)}: {error.message}"


def _name_faults(config: dict[str, Any]) -> Iterator[tuple[Keys, str]]:
    """What is written, and removed, for a cluster lies in folders of its name."""
    name = config["cluster_name"]
    if not PLAIN_NAME.fullmatch(name):
        what = (
            f'key "cluster_name": {shortened(name)} is no plain name: give it at most 64 letters, digits, . _ and -, '
        )
        yield ["cluster_name"], f"{what}the first a letter, a digit or _"


def _provider_faults(config: dict[str, Any]) -> Iterator[tuple[Keys, str]]:
    provider = config["provider"]
    if provider["type"] not in launcher_providers():
        close = did_you_mean(provider["type"], launcher_providers())
        yield ["provider", "type"], f'provider.type "{provider["type"]}" is unknown{close}'
    if provider["type"] != "local":
        return
    yield from (([key], f'key "{key}" does not go with provider.type local') for key in NOT_FOR_LOCAL if key in config)
    if "coordinator_address" not in provider:
        missing = [key for key in ("head_ip", "worker_ips") if key not in provider]
        yield from ((["provider"], f'provider.type local needs key "provider.{key}"') for key in missing)


def _ssh_faults(config: dict[str, Any]) -> Iterator[tuple[Keys, str]]:
    """Names that ssh would take for options."""
    provider = config["provider"]
    names: dict[tuple[str | int, ...], Any] = {
        ("auth", "ssh_user"): config.get("auth", {}).get("ssh_user"),
        ("provider", "head_ip"): provider.get("head_ip"),
    }
    names |= {("provider", "worker_ips", number): host for number, host in enumerate(provider.get("worker_ips") or [])}
    for keys, name in names.items():
        if name is not None and not re.fullmatch(r"[^\s-]\S*", str(name)):
            yield keys, f"key {_dotted(keys)}: {name!r} is no name: it is empty, begins with - or has a blank in it"


def _complete(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """The configuration with Ray's defaults, after Ray's own checks of how its parts fit together."""
    try:
        with quiet_ray():
            return complete_launcher_config(config)
    except (ValueError, KeyError, RuntimeError, jsonschema.ValidationError) as error:
        raise ClusterError(f"{path}: {getattr(error, 'message', error)}") from error


def _local_files(config: dict[str, Any]) -> dict[str, str]:
    keys = {
        name: value for name, value in config.get("auth", {}).items() if name in ("ssh_private_key", "ssh_public_key")
    }
    mounts = {f"file_mounts.{there}": str(here) for there, here in config.get("file_mounts", {}).items()}
    return {f"auth.{name}": value for name, value in keys.items()} | mounts


def _dotted(keys: Keys) -> str:
    return '"' + ".".join(str(key) for key in keys) + '"'
