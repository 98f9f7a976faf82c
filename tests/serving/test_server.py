"""A server, asked as its users ask it: by OpenAI's client, curl, and plain HTTP."""

import json
import re
import shutil
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from rich.console import Console

from rayrnn.prediction.predict import predict
from rayrnn.runs.directory import Run
from tests.serving.commands import Started


@pytest.fixture
def client(server: Started) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=server.token, max_retries=0)


# -- texts


def test_openais_client_has_texts_written(client: openai.OpenAI) -> None:
    answer = client.completions.create(model="text", prompt="abc", max_tokens=12, temperature=0, logprobs=2, n=2)
    assert [choice.finish_reason for choice in answer.choices] == ["length", "length"]
    assert len(answer.choices[0].text) == 12
    assert answer.choices[0].text == answer.choices[1].text
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (3, 24, 27)
    told = answer.choices[0].logprobs
    assert told is not None
    assert "".join(told.tokens or []) == answer.choices[0].text
    assert all(len(top) == 2 for top in told.top_logprobs or [])


def test_null_is_the_default(server: Started) -> None:
    asked = {"model": "text", "prompt": "abc", "seed": 3, "max_tokens": 9}
    nulls = dict.fromkeys(("temperature", "top_p", "stop", "n", "stream", "logprobs", "echo", "user"))
    told, expected = (server.told("POST", "/v1/completions", asked | more)["choices"] for more in (nulls, {}))
    assert told == expected


def test_a_stream_tells_the_same_text_piece_by_piece(client: openai.OpenAI) -> None:
    asked: dict[str, Any] = {"model": "text", "prompt": "abc", "max_tokens": 200, "seed": 11}
    whole = client.completions.create(**asked)
    events = list(client.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
    pieces = [choice.text for event in events for choice in event.choices]
    assert "".join(pieces) == whole.choices[0].text
    assert len(pieces) > 1
    assert [choice.finish_reason for choice in events[-2].choices] == ["length"]
    assert events[-1].usage is not None
    assert events[-1].usage.completion_tokens == 200


def test_the_models_are_listed(client: openai.OpenAI) -> None:
    assert {model.id for model in client.models.list()} == {"text", "kinds", "both", "series"}
    assert client.models.retrieve("text").owned_by == "rayrnn"


def test_openais_client_hears_what_is_wrong(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no model 'nosuch'"):
        client.completions.create(model="nosuch", prompt="a")
    with pytest.raises(openai.BadRequestError, match="prompt: the symbol 'Z'"):
        client.completions.create(model="text", prompt="Z")
    with pytest.raises(openai.BadRequestError, match="max_tokens"):
        client.completions.create(model="text", prompt="a", max_tokens=0)
    with pytest.raises(openai.BadRequestError, match="kinds writes no texts"):
        client.completions.create(model="kinds", prompt="a")


def test_curl_streams(server: Started) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl here")
    body = json.dumps({"model": "text", "prompt": "abc", "max_tokens": 20, "stream": True})
    command = ["curl", "--silent", "--no-buffer", f"{server.url}/v1/completions", "--data", body]
    told = subprocess.run(
        [*command, "--header", f"Authorization: Bearer {server.token}"], capture_output=True, text=True, check=True
    ).stdout
    *events, done, nothing = told.split("\n\n")
    assert (done, nothing) == ("data: [DONE]", "")
    texts = [json.loads(event.removeprefix("data: "))["choices"][0]["text"] for event in events]
    assert len("".join(texts)) == 20


def test_many_streams_are_written_at_once_each_as_alone(server: Started) -> None:
    def write(seed: int) -> str:
        asked = {"model": "text", "prompt": "def", "max_tokens": 50 + seed, "seed": seed}
        text = server.told("POST", "/v1/completions", asked)["choices"][0]["text"]
        assert isinstance(text, str)
        return text

    with ThreadPoolExecutor(24) as pool:
        together = list(pool.map(write, range(24)))
    assert together == [write(seed) for seed in range(24)]


def test_who_leaves_in_the_middle_of_a_stream_makes_room(server: Started) -> None:
    asked = {"model": "text", "prompt": "abc", "max_tokens": 100_000, "stream": True}
    headers = {"Authorization": f"Bearer {server.token}"}
    for _ in range(6):
        with (
            httpx.Client(timeout=60) as client,
            client.stream("POST", f"{server.url}/v1/completions", json=asked, headers=headers) as answer,
        ):
            assert next(answer.iter_text()).startswith("data: ")
    # 600,000 symbols would take minutes
    begun = time.monotonic()
    server.told("POST", "/v1/completions", {"model": "text", "prompt": "abc", "max_tokens": 200})
    assert time.monotonic() - begun < 60


# -- rows


def test_rows_are_answered_as_predict_does(
    server: Started, served_runs: dict[str, Run], waves: Path, tmp_path: Path
) -> None:
    for name in ("kinds", "both"):
        out = tmp_path / f"{name}.jsonl"
        predict(served_runs[name], waves, out, console=Console(quiet=True))
        due = [json.loads(line) for line in out.read_text().splitlines()]
        rows = [{"key": file.name, "values": values_of(file)} for file in sorted(waves.glob("*.csv"))]
        assert_alike(server.told("POST", "/predict", {"model": name, "rows": rows})["answers"], due)
        (one,) = server.told("POST", f"/predict?model={name}", rows[3])["answers"]
        assert_alike([one], due[3:4])


def assert_alike(answers: list[dict[str, Any]], due: list[dict[str, Any]]) -> None:
    assert [answer["key"] for answer in answers] == [answer["key"] for answer in due]
    assert [answer["label"] for answer in answers] == [answer["label"] for answer in due]
    for answer, other in zip(answers, due, strict=True):
        assert chances_of(answer) == pytest.approx(chances_of(other), abs=1e-5)


def chances_of(answer: dict[str, Any]) -> list[float]:
    told = answer["probabilities"]
    return [chance for step in (told if isinstance(told, list) else [told]) for chance in step.values()]


def values_of(file: Path) -> list[list[float]]:
    return [[float(cell) for cell in line.split(",")[:2]] for line in file.read_text().splitlines()[1:]]


def test_a_csv_is_answered_and_told_back(server: Started, waves: Path) -> None:
    file = waves / "11.csv"
    headers = {"Authorization": f"Bearer {server.token}", "Content-Type": "text/csv"}
    told = httpx.post(f"{server.url}/predict?model=kinds", content=file.read_bytes(), headers=headers).json()
    assert told["inputs"]["values"] == values_of(file)
    (by_values,) = server.told("POST", "/predict", {"model": "kinds", "rows": [{"values": values_of(file)}]})["answers"]
    assert told["answers"][0]["probabilities"] == by_values["probabilities"]
    swapped = "\n".join(["y,x", *(f"{y},{x}" for x, y in values_of(file))]).encode()
    again = httpx.post(f"{server.url}/predict?model=kinds", content=swapped, headers=headers).json()
    assert again == told, "columns go by their names, also in what is told back"
    answer = httpx.post(f"{server.url}/predict?model=kinds", content=b"x,y,kind\n1,oops,a\n", headers=headers)
    assert answer.status_code == 422
    assert "the CSV:2: column 'y' is 'oops'" in answer.json()["error"]["message"], answer.text


def test_features_may_stand_by_their_names_in_any_order(server: Started) -> None:
    by_name = {"y": [1.0, 2.0], "x": [0.5, 0.6]}
    by_place = {"values": [[0.5, 1.0], [0.6, 2.0]]}
    one, other = (
        server.told("POST", "/predict", {"model": "kinds", "rows": [row]})["answers"] for row in (by_name, by_place)
    )
    assert one == other


def test_requests_are_answered_together_and_one_that_is_wrong_ends_alone(server: Started) -> None:
    good, bad = {"values": [[0.1, 0.2]] * 5}, {"values": [[0.1, 0.2, 0.3]] * 5}

    def send(number: int) -> int:
        row = bad if number % 5 == 0 else good
        return server.ask("POST", "/predict", {"model": "kinds", "rows": [row]}).status_code

    with ThreadPoolExecutor(20) as pool:
        statuses = list(pool.map(send, range(40)))
    assert statuses == [422 if number % 5 == 0 else 200 for number in range(40)]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"model": "kinds", "rows": []}, 400, "no rows"),
        ({"model": "kinds", "rows": [5]}, 400, "row 0 is 5"),
        ({"model": "kinds", "rows": [{"values": [[1, 2]]}, {"values": [[1, None]]}]}, 422, "'1', step 0"),
        ({"model": "kinds", "rows": [{"values": [[1, 2]], "colour": "red"}]}, 400, "row 0 has colour"),
        ({"model": "kinds", "rows": [{"values": [[1, 2], [3]]}]}, 422, "holds 1 items"),
        ({"model": "kinds", "rows": [{"values": "abc"}]}, 422, "must be lists"),
        ({"model": "kinds", "rows": [{"values": []}]}, 400, "row 0 has no step"),
        ({"model": "kinds", "rows": [{"text": "abc"}]}, 422, "text"),
        ({"model": "kinds", "rows": [{"x": [1, 2], "y": [1]}]}, 400, "x has 2 steps, and y has 1"),
        ({"model": "kinds", "rows": [{"values": [[1, 2]]}], "row": 3}, 400, "row, which is not read"),
        ({"model": "kinds", "row": {"values": [[1, 2]]}}, 400, "row, which is not read; it may have rows, model"),
        ({"model": "kinds"}, 400, "no `rows`"),
        ({"model": "kinds", "rows": [{"x": [1], "yy": [2]}]}, 400, 'row 0 has no y: .*; did you mean "y"'),
        ({"model": "kinds", "rows": [{"values": [[1, 2], [3, "a"]]}]}, 422, 'row 0, step 1 holds "a", where numbers'),
        ({"rows": [{"values": [[1, 2]]}]}, 400, "say which model"),
        ({"model": "text", "rows": [{"text": "abc"}]}, 400, "language model"),
    ],
)
def test_rows_that_cannot_be_read_are_told_of(server: Started, body: Any, status: int, words: str) -> None:
    told = server.refused("POST", "/predict", body, status)
    assert re.search(words, told), told


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"rows": [{"values": [[NaN, 1]]}]}', "NaN"),
        (b'{"rows": [{"values": [[-Infinity, 1]]}]}', "-Infinity"),
        (b'{"rows"', "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "nested too deeply"),
        (b"", "no JSON"),
    ],
)
def test_what_is_no_json_is_refused(server: Started, content: bytes, words: str) -> None:
    headers = {"Authorization": f"Bearer {server.token}"}
    answer = httpx.post(f"{server.url}/predict?model=kinds", content=content, headers=headers)
    assert answer.status_code == 400, answer.text
    assert words in answer.json()["error"]["message"]


# -- sessions


def test_a_sensor_is_scored_live(server: Started, served_runs: dict[str, Run]) -> None:
    session = server.told("POST", "/sessions", {"model": "series"}, status=201)["id"]
    lines = (Path(served_runs["series"].path).parent / "test" / "0.csv").read_text().splitlines()[1:]
    steps = [[float(cell) for cell in line.split(",")] for line in lines]
    told = [server.told("POST", f"/sessions/{session}/steps", {"values": [step]})["answers"][0] for step in steps[:45]]
    assert [answer["step"] for answer in told] == list(range(45))
    assert server.told("GET", f"/sessions/{session}")["num_steps"] == 45
    state = server.told("GET", f"/sessions/{session}/state")
    (here,) = server.told("POST", f"/sessions/{session}/steps", {"values": [steps[45]]})["answers"]
    other = server.told("POST", "/sessions", {"model": "series"}, status=201)["id"]
    server.told("PUT", f"/sessions/{other}/state", state)
    (there,) = server.told("POST", f"/sessions/{other}/steps", {"values": [steps[45]]})["answers"]
    assert here == there
    for name in (session, other):
        server.told("DELETE", f"/sessions/{name}")
    assert "no session" in server.refused("GET", f"/sessions/{session}", None, 404)


def test_steps_that_are_sent_at_once_are_read_one_after_another(server: Started) -> None:
    session = server.told("POST", "/sessions", {"model": "text"}, status=201)["id"]
    with ThreadPoolExecutor(8) as pool:
        pieces = pool.map(lambda _: server.told("POST", f"/sessions/{session}/steps", {"text": "ab"}), range(16))
    steps = sorted(answer["step"] for piece in pieces for answer in piece["answers"])
    assert steps == list(range(32))
    server.told("DELETE", f"/sessions/{session}")


def test_what_is_no_step_changes_nothing(server: Started) -> None:
    session = server.told("POST", "/sessions", {"model": "kinds"}, status=201)["id"]
    for body, status in (
        ({"values": []}, 400),
        ([{"values": [[1, 2]]}, {"values": [[1, 2]]}], 400),
        ({"values": [[1, 2, 3]]}, 422),
        ({"text": "abc"}, 422),
    ):
        server.refused("POST", f"/sessions/{session}/steps", body, status)
    assert server.told("POST", f"/sessions/{session}/steps", {"values": [[1, 2]]})["num_steps"] == 1
    server.told("DELETE", f"/sessions/{session}")


def test_sessions_are_for_networks_that_carry_something_on(server: Started) -> None:
    assert "whole sequences" in server.refused("POST", "/sessions", {"model": "both"}, 400)
    assert "say which model" in server.refused("POST", "/sessions", {}, 400)


def test_a_state_of_another_network_is_refused(server: Started) -> None:
    session = server.told("POST", "/sessions", {"model": "kinds"}, status=201)["id"]
    other = server.told("POST", "/sessions", {"model": "series"}, status=201)["id"]
    server.told("POST", f"/sessions/{other}/steps", {"values": [[1, 2]]})
    state = server.told("GET", f"/sessions/{other}/state")
    for wrong in (
        {**state, "tensors": "x"},
        {**state, "tensors": "AAAA"},
        {**state, "num_steps": -1},
        {**state, "version": 9},
        {"a": 1},
        5,
    ):
        assert "no state" in server.refused("PUT", f"/sessions/{session}/state", wrong, 400)
    text = server.told("POST", "/sessions", {"model": "text"}, status=201)["id"]
    assert server.ask("PUT", f"/sessions/{text}/state", state).status_code in (400, 422)
    for name in (session, other, text):
        server.told("DELETE", f"/sessions/{name}")


def test_no_more_sessions_are_kept_than_there_is_room_for(server: Started) -> None:
    kept = [server.told("POST", "/sessions", {"model": "text"}, status=201)["id"] for _ in range(20)]
    assert "20 sessions" in server.refused("POST", "/sessions", {"model": "text"}, 429)
    for name in kept:
        server.told("DELETE", f"/sessions/{name}")


# -- limits


def test_without_the_token_nothing_is_told(server: Started) -> None:
    for headers in ({}, {"Authorization": "Bearer other"}, {"Authorization": server.token or ""}):
        answer = httpx.get(f"{server.url}/v1/models", headers=headers)
        assert answer.status_code == 401
        assert "Bearer TOKEN" in answer.json()["error"]["message"]
    for path in ("/healthz", "/", "/docs", "/openapi.json"):
        assert httpx.get(f"{server.url}{path}").status_code == 200


def test_a_body_that_is_too_large_is_refused(server: Started) -> None:
    content = b"x" * 50_000_000
    headers = {"Authorization": f"Bearer {server.token}"}
    answer = httpx.post(f"{server.url}/predict?model=kinds", content=content, headers=headers, timeout=60)
    assert answer.status_code == 413

    def in_pieces() -> Any:
        yield from (content[:1_000_000] for _ in range(3))

    answer = httpx.post(f"{server.url}/predict?model=kinds", content=in_pieces(), headers=headers, timeout=60)
    assert answer.status_code == 413
    assert "1.05 MB" in answer.json()["error"]["message"]


def test_what_is_not_there_is_told_as_other_errors_are(server: Started) -> None:
    assert "nosuch" in server.refused("GET", "/nosuch", None, 404)
    assert server.refused("GET", "/predict", None, 405)


def test_the_interface_describes_itself(server: Started) -> None:
    paths = httpx.get(f"{server.url}/openapi.json").json()["paths"]
    assert {"/v1/completions", "/predict", "/sessions", "/sessions/{name}/steps"} <= set(paths)
    schema = paths["/v1/completions"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert {"prompt", "max_tokens", "temperature", "top_p", "seed", "stop", "n", "logprobs", "stream"} <= set(
        schema["properties"]
    )


def test_it_listens_at_this_machine_only(server: Started) -> None:
    port = int(server.url.rpartition(":")[2])
    addresses = {info[4][0] for info in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
    for address in addresses - {"127.0.0.1"}:
        with socket.socket() as probe:
            probe.settimeout(5)
            assert probe.connect_ex((str(address), port)) != 0


def test_a_slow_client_does_not_hold_the_others_up(server: Started) -> None:
    port = int(server.url.rpartition(":")[2])
    idle = [socket.create_connection(("127.0.0.1", port)) for _ in range(20)]
    for one in idle:
        one.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n")
    assert server.told("POST", "/v1/completions", {"model": "text", "prompt": "a", "max_tokens": 5})["choices"]
    for one in idle:
        one.close()
