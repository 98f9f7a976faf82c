"""The command that puts runs behind HTTP."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rayrnn.cli.completion import complete_run
from rayrnn.cli.runs import Trust
from rayrnn.cli.talk import console, give_json
from rayrnn.errors import UsageError

if TYPE_CHECKING:
    from rayrnn.serving.serve import Address


def serve(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...", help="Run directories; NAME=RUN gives one another name.", autocompletion=complete_run
        ),
    ],
    port: Annotated[int, typer.Option(help="Where to listen; 0 takes a port that is free.")] = 8000,
    host: Annotated[
        str, typer.Option(help="The address to listen at; 0.0.0.0 is reached from other machines.")
    ] = "127.0.0.1",
    replicas: Annotated[
        str, typer.Option(metavar="N | MIN:MAX", help="Processes that answer; between MIN and MAX by the load.")
    ] = "1",
    token_file: Annotated[
        Path | None,
        typer.Option("--token-file", metavar="FILE", help="Its first line is the token; without it one is made."),
    ] = None,
    open_to_all: Annotated[bool, typer.Option("--no-token", help="Answer whoever asks, without a token.")] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Serve newer models of the runs as training writes them.")
    ] = False,
    most_requests: Annotated[
        int, typer.Option("--max-requests", metavar="N", help="Requests at once of each process; more get a 429.")
    ] = 512,
    most_bytes: Annotated[
        int, typer.Option("--max-body", metavar="MB", help="Of one request, in MB; larger ones get a 413.")
    ] = 8,
    most_sessions: Annotated[
        int, typer.Option("--max-sessions", metavar="N", help="Sessions that are kept at once.")
    ] = 10_000,
    idle: Annotated[
        float, typer.Option("--session-idle", metavar="SECONDS", help="After which an unused session is forgotten.")
    ] = 3600.0,
    address: Annotated[
        str | None, typer.Option(help="A Ray cluster; without it the one `rayrnn up` started, or one of its own.")
    ] = None,
    cluster: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Serve on the hosts of this cluster file; ssh brings the port here."),
    ] = None,
    trust: Trust = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print where it listens as one JSON object.")] = False,
) -> None:
    """Answer over HTTP: texts as OpenAI's completions, rows, and sequences step by step; until Ctrl-C."""
    from rayrnn.recipe.sources import check_library

    check_library("fastapi", "serve", "rayrnn serve")
    from rayrnn.serving.http_guard import Limits
    from rayrnn.serving.serve import ServeOptions, named_runs, serving, until_stopped

    if open_to_all and token_file is not None:
        raise UsageError("--no-token and --token-file contradict each other: give one of the two")
    if min(most_requests, most_bytes, most_sessions) < 1 or idle <= 0:
        raise UsageError("--max-requests, --max-body, --max-sessions and --session-idle must be above 0")
    tokens = {"token": None if open_to_all else _token(token_file)} if open_to_all or token_file is not None else {}
    options = ServeOptions(
        host=host,
        port=port,
        replicas=_replicas(replicas),
        follow=follow,
        limits=Limits(most_bytes * 2**20, most_requests, most_sessions, idle),
        **tokens,
    )
    opened = named_runs(runs, trust=trust)
    if cluster is not None:
        if address is not None:
            raise UsageError("--address and --cluster are two ways to a cluster: give one")
        from rayrnn.remote.serve_there import serving_there

        with until_stopped() as wait, serving_there(opened, options, cluster, console=console()) as there:
            _tell(there.address, list(opened), as_json=as_json)
            wait(there.has_ended)
        return
    with until_stopped() as wait, serving(opened, options, address=address, console=console()) as place:
        _tell(place, list(opened), as_json=as_json)
        wait(lambda: False)
        console().print("finishing what is being answered ...")


def _replicas(text: str) -> tuple[int, int]:
    fewest, colon, most = text.partition(":")
    try:
        return (int(fewest), int(most)) if colon else (int(fewest), int(fewest))
    except ValueError:
        raise UsageError(f"--replicas is {text!r}; due is a number, or FEWEST:MOST such as 1:4") from None


def _token(path: Path | None) -> str:
    assert path is not None
    try:
        token = path.read_text(encoding="utf-8").partition("\n")[0].strip()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--token-file {path} cannot be read: {error}") from None
    if not token or not token.isascii() or " " in token:
        raise UsageError(f"--token-file {path}: its first line must be a token, of ASCII without blanks")
    return token


def _tell(place: "Address", names: list[str], *, as_json: bool) -> None:
    if as_json:
        give_json({"url": place.url, "token": place.token, "models": names})
        return
    screen = console()
    screen.print(f"serving   {', '.join(names)}")
    page = f"{place.url}/#token={place.token}" if place.token else f"{place.url}/"
    screen.print(f"page      {page}")
    screen.print(f"HTTP      {place.url}/docs says what there is")
    if place.token:
        screen.print(f"token     {place.token}")
    screen.print("stop      Ctrl-C finishes what is being answered")
