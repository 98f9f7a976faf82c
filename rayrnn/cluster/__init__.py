"""Where it runs: a Ray head on this machine, hosts through Ray's launcher, or a Ray inside this process."""

from rayrnn.cluster.connection import Connection, connect, stay_connected

__all__ = ["Connection", "connect", "stay_connected"]
