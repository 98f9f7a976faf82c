"""The HTTP interface of a server: what comes in is checked, handed to the engine, and what it answers is told."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any

import pyarrow as pa
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.exceptions import HTTPException

from rayrnn.data.encoding import Classes, Numbers
from rayrnn.data.rows import step_counts
from rayrnn.data.symbols import Symbols
from rayrnn.errors import DataError, RayrnnError, UsageError
from rayrnn.prediction.live_steps import Session, Steps
from rayrnn.prediction.output import plain_rows
from rayrnn.serving.completions import Answer, Choice, CompletionRequest, error_event, texts_of, validated
from rayrnn.serving.engine import Engine, Served
from rayrnn.serving.http_guard import Guard, Limits, Pulse, Refused, told, too_large
from rayrnn.serving.request_rows import parse_json, rows_of_csv_body, rows_of_json
from rayrnn.serving.session_state import restored, stored
from rayrnn.serving.session_store import Refusal
from rayrnn.wording import listed

#: between two looks whether somebody who waits for a whole text is still there
LOOK_SECONDS = 1.0
_STATUS = {"unknown": 404, "full": 429, "busy": 409}


class Server:
    """What the routes do."""

    def __init__(self, engine: Engine, pulse: Pulse, store: Any, limits: Limits) -> None:
        self._engine = engine
        self._pulse = pulse
        self._store = store
        self._limits = limits
        self._seeds = random.SystemRandom()

    # -- what there is

    def models(self) -> list[dict[str, Any]]:
        """The runs, as /v1/models tells of them."""
        return [_described(served) for served in self._engine.served.values()]

    def model(self, name: str) -> dict[str, Any]:
        """One of them."""
        return _described(self._named(name))

    # -- texts

    async def complete(self, request: Request) -> Response:
        """OpenAI's completions: whole, or as a stream of events."""
        asked = validated(parse_json(await self._body(request)))
        served = self._named(asked.model)
        if served.writer is None or served.servable.draws:
            what = "draws images: rayrnn generate --to" if served.servable.draws else "answers rows: POST /predict"
            raise UsageError(f"{served.servable.name} writes no texts, it {what}")
        symbols = served.servable.model.encoding.inputs
        assert isinstance(symbols, Symbols)
        texts = texts_of(asked, symbols, default_seed=self._seeds.getrandbits(62))
        choices = [Choice(index, text, asked.stops) for index, text in enumerate(texts)]
        answer = Answer(asked, served.servable.name, choices)
        for text in texts:
            served.writer.add(text)
        self._engine.wake()
        if asked.stream:
            headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
            return StreamingResponse(self._stream(answer, choices), media_type="text/event-stream", headers=headers)
        return JSONResponse(await self._whole(answer, choices, request))

    async def _stream(self, answer: Answer, choices: list[Choice]) -> AsyncIterator[str]:
        try:
            async for told in self._told(choices):
                yield answer.events(told)
            yield answer.end()
        except RayrnnError as error:
            yield error_event(str(error))
        finally:
            _leave(choices)

    async def _whole(self, answer: Answer, choices: list[Choice], request: Request) -> dict[str, Any]:
        texts: dict[int, list[str]] = {choice.index: [] for choice in choices}
        symbols: dict[int, list[Any]] = {choice.index: [] for choice in choices}
        looked = time.monotonic()
        try:
            async for told in self._told(choices):
                for choice, text, news in told:
                    texts[choice.index].append(text)
                    symbols[choice.index] += news
                if time.monotonic() - looked >= LOOK_SECONDS:
                    looked = time.monotonic()
                    if await request.is_disconnected():
                        raise Refused(499, "the client has left")
        finally:
            _leave(choices)
        return answer.whole({index: ("".join(texts[index]), symbols[index]) for index in texts})

    async def _told(self, choices: list[Choice]) -> AsyncIterator[list[tuple[Choice, str, list[Any]]]]:
        """What is new of the choices, whenever something is, until all have ended."""
        going = choices
        while going:
            beat = self._pulse.next()
            told = [(choice, *choice.take()) for choice in going]
            going = [choice for choice in going if choice.finish_reason is None]
            if news := [one for one in told if one[1] or one[2] or one[0].finish_reason is not None]:
                yield news
            if going:
                await beat.wait()

    # -- rows

    async def predict(self, request: Request) -> dict[str, Any]:
        """What `rayrnn predict` answers to rows, or to a CSV."""
        body, name = await self._body(request), request.query_params.get("model")
        if _is_csv(request):
            served = self._answering(name)
            rows = await asyncio.to_thread(rows_of_csv_body, body, served.servable.model)
        else:
            given = parse_json(body)
            if isinstance(given, dict) and ("rows" in given or isinstance(given.get("model"), str)):
                _check_keys(given, ("rows", "model"))
                name = given.get("model", name)
                if "rows" not in given:
                    raise UsageError('the body has no `rows`: {"model": "NAME", "rows": [...]}')
                given = given["rows"]
            served = self._answering(name)
            rows = await asyncio.to_thread(rows_of_json, given, served.servable.model)
        assert served.rows is not None
        answers = served.rows.add(rows)
        self._engine.wake()
        table: pa.Table = await asyncio.wrap_future(answers)
        told = {"model": served.servable.name, "answers": plain_rows(table)}
        # who sends a file sees how it was read
        return told | {"inputs": plain_rows(rows.drop_columns(["key"]))[0]} if _is_csv(request) else told

    def _answering(self, name: str | None) -> Served:
        served = self._named(name)
        if served.rows is None:
            raise UsageError(
                f"{served.servable.name} is a language model, which has no labels to predict: POST /v1/completions "
                "writes with it, POST /sessions tells how surprising each step is"
            )
        return served

    # -- sessions

    async def begin(self, request: Request) -> dict[str, Any]:
        """A new session."""
        body = await self._body(request)
        given = parse_json(body) if body else {}
        _check_keys(given, ("model", "key"))
        served = self._following(given.get("model"))
        session = Session(key=str(given.get("key") or "session"))
        name = _there(await self._store.create(served.servable.name, session))
        return {"id": name, "model": served.servable.name, "idle_seconds": self._limits.idle}

    async def step(self, name: str, request: Request) -> dict[str, Any]:
        """Answer new steps of a session."""
        given = parse_json(await self._body(request))
        holder, model, session = _there(await self._store.borrow(name))
        after = None
        try:
            served = self._following(model)
            rows = await asyncio.to_thread(_one_row, given, served)
            steps = Steps(session, rows)
            assert served.live is not None
            served.live.add(steps)
            self._engine.wake()
            answers, after = await asyncio.wrap_future(steps.answers)
        finally:
            await asyncio.shield(self._store.give_back(name, holder, after))
        return {"id": name, "num_steps": after.num_steps, "answers": answers}

    async def session(self, name: str) -> dict[str, Any]:
        """How far a session is."""
        model, session = _there(await self._store.look(name))
        return {"id": name, "model": model, "key": session.key, "num_steps": session.num_steps}

    async def state(self, name: str) -> dict[str, Any]:
        """All that it takes to go on with a session elsewhere."""
        model, session = _there(await self._store.look(name))
        return stored(session, model)

    async def put_state(self, name: str, request: Request) -> dict[str, Any]:
        """Go on from a state that was kept, in the place of what the session is."""
        given = parse_json(await self._body(request))
        model, _ = _there(await self._store.look(name))
        served = self._following(model)
        session = await asyncio.to_thread(restored, given, served.servable.model, served.first_state)
        holder, _, _ = _there(await self._store.borrow(name))
        await self._store.give_back(name, holder, session)
        return {"id": name, "model": model, "num_steps": session.num_steps}

    async def end(self, name: str) -> dict[str, Any]:
        """Forget a session."""
        if not await self._store.end(name):
            raise Refused(404, f"there is no session {name!r}")
        return {"id": name, "ended": True}

    def _following(self, name: str | None) -> Served:
        served = self._named(name)
        if served.no_sessions is not None:
            raise UsageError(f"{served.servable.name} cannot be followed step by step: {served.no_sessions}")
        return served

    # -- all of them

    def _named(self, name: str | None) -> Served:
        served = self._engine.served
        if name is None and len(served) == 1:
            return next(iter(served.values()))
        if name is None:
            raise UsageError(f"say which model is meant, `model`: {listed(sorted(served))}")
        if name not in served:
            raise Refused(404, f"there is no model {name!r} here; there is {listed(sorted(served))}")
        return served[name]

    async def _body(self, request: Request) -> bytes:
        pieces, total = [], 0
        async for piece in request.stream():
            total += len(piece)
            if total > self._limits.body:
                raise too_large(self._limits)
            pieces.append(piece)
        return b"".join(pieces)


def make_app(
    begin: Callable[[], Awaitable[Server]], *, token: str | None, limits: Limits, end: Callable[[], Awaitable[None]]
) -> FastAPI:
    """The routes.

    Args:
        begin: is awaited before the first request.
        end: is awaited after the last one.
    """
    found: list[Server] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        found.append(await begin())
        yield
        await end()

    app = FastAPI(title="rayrnn", docs_url=None, redoc_url=None, lifespan=lifespan, description=_ABOUT)
    _add_pages(app)
    _add_errors(app)

    @app.get("/healthz", tags=["server"], summary="Whether the server answers.")
    async def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models", tags=["models"], summary="The runs that are served.")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": found[0].models()}

    @app.get("/v1/models/{name}", tags=["models"], summary="One of them.")
    async def model(name: str) -> dict[str, Any]:
        return found[0].model(name)

    @app.post(
        "/v1/completions",
        tags=["language models"],
        summary="Write a text: OpenAI's completions.",
        openapi_extra=_takes(CompletionRequest.model_json_schema()),
    )
    async def completions(request: Request) -> Response:
        return await found[0].complete(request)

    @app.post("/predict", tags=["rows"], summary="Answer sequences.", openapi_extra=_takes(_ROWS, csv=True))
    async def predict(request: Request) -> dict[str, Any]:
        return await found[0].predict(request)

    @app.post("/sessions", status_code=201, tags=["sessions"], summary="Begin one.", openapi_extra=_takes(_SESSION))
    async def begin_session(request: Request) -> dict[str, Any]:
        return await found[0].begin(request)

    @app.post("/sessions/{name}/steps", tags=["sessions"], summary="Answer new steps.", openapi_extra=_takes(_STEPS))
    async def step(name: str, request: Request) -> dict[str, Any]:
        return await found[0].step(name, request)

    @app.get("/sessions/{name}", tags=["sessions"], summary="How far it is.")
    async def session(name: str) -> dict[str, Any]:
        return await found[0].session(name)

    @app.get("/sessions/{name}/state", tags=["sessions"], summary="What it takes to go on elsewhere.")
    async def state(name: str) -> dict[str, Any]:
        return await found[0].state(name)

    @app.put("/sessions/{name}/state", tags=["sessions"], summary="Go on from such a state.")
    async def put_state(name: str, request: Request) -> dict[str, Any]:
        return await found[0].put_state(name, request)

    @app.delete("/sessions/{name}", tags=["sessions"], summary="End it.")
    async def end_session(name: str) -> dict[str, Any]:
        return await found[0].end(name)

    app.add_middleware(Guard, token=token, limits=limits)
    return app


_ABOUT = "Runs of rayrnn. Requests have the header `Authorization: Bearer TOKEN`; errors are told as OpenAI's are."
_ROW = {"type": "object", "description": 'One sequence in the row schema, such as {"values": [[0.1], [0.2]]}'}
_ROWS = {
    "type": "object",
    "properties": {"model": {"type": "string"}, "rows": {"type": "array", "items": _ROW}},
    "required": ["rows"],
}
_SESSION = {
    "type": "object",
    "properties": {
        "model": {"type": "string"},
        "key": {"type": "string", "description": "Names the sequence, for a threshold of its own."},
    },
}
_STEPS = {"type": "object", "description": "The new steps, as one row."}


def _takes(schema: dict[str, Any], *, csv: bool = False) -> dict[str, Any]:
    """What OpenAPI says of a body that is checked by hand."""
    content: dict[str, Any] = {"application/json": {"schema": schema}}
    if csv:
        content["text/csv"] = {"schema": {"type": "string"}}
    return {"requestBody": {"content": content, "required": True}}


def _add_pages(app: FastAPI) -> None:
    pages = files("rayrnn.serving")

    @app.get("/", include_in_schema=False)
    async def page() -> HTMLResponse:
        return HTMLResponse((pages / "page.html").read_text(encoding="utf-8"))

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse((pages / "docs.html").read_text(encoding="utf-8"))


def _add_errors(app: FastAPI) -> None:
    @app.exception_handler(Refused)
    async def refused(request: Request, error: Refused) -> Response:
        return told(error)

    @app.exception_handler(RayrnnError)
    async def failed(request: Request, error: RayrnnError) -> Response:
        # a prompt that cannot be read is OpenAI's 400
        of_data = 400 if request.url.path == "/v1/completions" else 422
        status = 400 if isinstance(error, UsageError) else of_data if isinstance(error, DataError) else 500
        return told(Refused(status, str(error)))

    @app.exception_handler(HTTPException)
    async def not_there(request: Request, error: HTTPException) -> Response:
        there = "; /docs says what there is"
        return told(Refused(error.status_code, f"{request.method} {request.url.path}: {error.detail}{there}"))

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> Response:
        return told(Refused(500, f"rayrnn failed: {type(error).__name__}; the server's log has more"))


def _check_keys(given: Any, known: tuple[str, ...]) -> None:
    if not isinstance(given, dict):
        raise UsageError(f"the body must be a JSON object with {listed(known)}")
    if unknown := sorted(set(given) - set(known)):
        raise UsageError(f"the body has {listed(unknown)}, which is not read; it may have {listed(known)}")


def _one_row(given: Any, served: Served) -> pa.Table:
    rows = rows_of_json(given, served.servable.model)
    if len(rows) != 1 or not step_counts(rows)[0]:
        raise UsageError("a session takes one row with one new step or more")
    return rows


def _is_csv(request: Request) -> bool:
    return request.headers.get("content-type", "").split(";")[0].strip().lower() in ("text/csv", "application/csv")


def _there(found: Any) -> Any:
    if isinstance(found, Refusal):
        raise Refused(_STATUS[found.kind], found.words)
    return found


def _leave(choices: list[Choice]) -> None:
    for choice in choices:
        choice.text.left = True


def _described(served: Served) -> dict[str, Any]:
    servable, encoding = served.servable, served.servable.model.encoding
    told: dict[str, Any] = {
        "id": servable.name,
        "object": "model",
        "created": 0,
        "owned_by": "rayrnn",
        "version": servable.version,
        "task": servable.model.recipe.task,
        "writes": servable.writes and not servable.draws,
        "sessions": served.no_sessions is None,
        "detects": servable.detector is not None,
        "per_step": encoding.per_step,
        "horizon": encoding.ahead,
    }
    if encoding.foretold is not None and len(encoding.foretold.horizons) > 1:
        told["horizons"] = list(encoding.foretold.horizons)
    if isinstance(encoding.targets, Classes):
        told["classes"] = list(encoding.targets.names)
    if isinstance(encoding.inputs, Numbers):
        told["features"] = list(encoding.column_names) or encoding.inputs.num_columns
    return told
