"""What the hosts get beside rayrnn itself, at the versions that this machine has."""

import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version

#: with these a machine reads from Spark; a Java may be its own
SPARK = ("pyspark", "raydp")


def packages_for_hosts() -> tuple[str, ...]:
    """As pip takes them: Ray, and all of `rayrnn[spark]` where this machine has it."""
    has_spark = all(installed(name) for name in SPARK)
    return (f"ray=={version('ray')}", *(spark_packages() if has_spark else ()))


def spark_packages() -> tuple[str, ...]:
    """What `rayrnn[spark]` is made of: as it is here, and as the extra asks for it where it is not."""
    return tuple(_pinned(wanted) for wanted in _extra("spark"))


def installed(name: str) -> str | None:
    """The version that this machine has."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _extra(extra: str) -> Iterator[str]:
    for requirement in requires("rayrnn") or ():
        package, _, condition = requirement.partition(";")
        if re.search(rf"extra == ['\"]{extra}['\"]", condition):
            yield package.strip()


def _pinned(requirement: str) -> str:
    name = re.split(r"[^\w.-]", requirement)[0]
    here = installed(name)
    return f"{name}=={here}" if here else requirement
