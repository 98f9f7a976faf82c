"""What stands before the routes: the token, the limits, and how errors are told."""

import asyncio
import hmac
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fastapi.responses import JSONResponse

from rayrnn.wording import size

#: that anybody may see
OPEN = ("/", "/healthz", "/docs", "/openapi.json")


@dataclass(frozen=True)
class Limits:
    """What one server bears."""

    #: bytes of a request's body
    body: int = 8 * 2**20
    #: requests at once, of one replica
    requests: int = 512
    sessions: int = 10_000
    #: seconds after which a session that nobody uses is forgotten
    idle: float = 3600.0


class Refused(Exception):
    """A request that is not answered, by its HTTP status."""

    def __init__(self, status: int, words: str) -> None:
        super().__init__(words)
        self.status = status


class Pulse:
    """Wakes all who wait whenever there is news; `beat` may be called from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._next = asyncio.Event()

    def next(self) -> asyncio.Event:
        """Is set at the next beat."""
        return self._next

    def beat(self) -> None:
        """Wake them."""
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._beat)

    def _beat(self) -> None:
        before, self._next = self._next, asyncio.Event()
        before.set()


class Guard:
    """Lets in who has the token, not more than there is room for, and not more bytes than are read."""

    def __init__(self, app: Any, *, token: str | None, limits: Limits) -> None:
        self._app = app
        self._token = token
        self._limits = limits
        self._inside = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN:
            await self._app(scope, receive, send)
            return
        if refused := self._refuse(dict(scope["headers"])):
            await told(refused)(scope, receive, send)
            return
        self._inside += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._inside -= 1

    def _refuse(self, headers: dict[bytes, bytes]) -> Refused | None:
        if self._token is not None:
            kind, _, given = headers.get(b"authorization", b"").partition(b" ")
            if kind.lower() != b"bearer" or not hmac.compare_digest(given.strip(), self._token.encode()):
                return Refused(401, "no token, or another one: send the header `Authorization: Bearer TOKEN`")
        if self._inside >= self._limits.requests:
            return Refused(429, f"{self._inside:,} requests are being answered, as many as there is room for: wait")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._limits.body:
            return too_large(self._limits)
        return None


def told(refused: Refused) -> JSONResponse:
    """An error as OpenAI's clients read it."""
    kind = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}.get(
        refused.status, "invalid_request_error" if refused.status < 500 else "server_error"
    )
    error = {"message": str(refused), "type": kind, "param": None, "code": None}
    headers = {"Retry-After": "1"} if refused.status == 429 else None
    return JSONResponse({"error": error}, refused.status, headers)


def too_large(limits: Limits) -> Refused:
    """What a body is refused with."""
    return Refused(413, f"the body has more than {size(limits.body)}: send several requests, or use `rayrnn predict`")
