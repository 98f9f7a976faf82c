"""One replica of a server: an engine with the runs that the store has, behind the HTTP interface."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayActorError, RayError

from rayrnn.serving.app import Server, make_app
from rayrnn.serving.engine import Engine
from rayrnn.serving.http_guard import Limits, Pulse

#: between two looks for newer models
POLL_SECONDS = 1.0
SWITCH_SECONDS = 0.0001


@dataclass(frozen=True)
class ReplicaOptions:
    """What a replica has to know."""

    #: of the store's actor, and where Ray finds it
    store: str
    namespace: str
    token: str | None
    limits: Limits


def app_builder(options: ReplicaOptions) -> Callable[[], FastAPI]:
    """What Ray Serve calls in every replica to have its app."""

    def build() -> FastAPI:
        replica = _Replica(options)
        return make_app(replica.begin, token=options.token, limits=options.limits, end=replica.end)

    return build


class _Replica:
    def __init__(self, options: ReplicaOptions) -> None:
        self._options = options
        self._store = ray.get_actor(options.store, namespace=options.namespace)
        self._engine: Engine | None = None
        self._following: asyncio.Task[None] | None = None

    async def begin(self) -> Server:
        """Have all runs here, and look for newer ones from now on."""
        # the thread that computes waits so long for the one that answers, each time both want to run
        sys.setswitchinterval(SWITCH_SECONDS)
        pulse = Pulse()
        engine = Engine(on_news=pulse.beat, on_death=self._on_death)
        self._engine = engine
        known: dict[str, str] = {}
        await self._fetch(engine, known)
        self._following = asyncio.create_task(self._follow(engine, known))
        return Server(engine, pulse, _Asked(self._store), self._options.limits)

    async def end(self) -> None:
        """Let the thread end."""
        if self._following is not None:
            self._following.cancel()
        if self._engine is not None:
            self._engine.close()

    async def _fetch(self, engine: Engine, known: dict[str, str]) -> None:
        newer = await self._store.models.remote(known)
        for name, (reference,) in newer.items():
            servable = await reference
            await asyncio.to_thread(engine.put, servable)
            known[name] = servable.version

    async def _follow(self, engine: Engine, known: dict[str, str]) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self._fetch(engine, known)
            except RayActorError:
                # whoever started the server is gone without a word: it ends, as it would have with one
                with suppress(Exception):
                    await serve.shutdown_async()
                return
            except RayError:
                continue

    def _on_death(self, error: BaseException) -> None:
        """The engine's thread has died: this process answers nobody any more, and Serve starts another."""
        os._exit(1)


class _Asked:
    """The store as its methods are called: `await store.look(name)`."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._actor, name)
        return lambda *arguments: method.remote(*arguments)
