"""Keys, scopes, rates and sizes, through the middleware and a real server."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from test_api import event, publish, served, start

from recsys.errors import BadInput
from recsys.home import Home
from serving import guard as guards
from serving.guard import BODY, Buckets, Guard, scope_of
from serving.keys import Keys, digest


@pytest.fixture
def keys(tmp_path: Path) -> Keys:
    return Keys(Home(tmp_path).keys)


def ask(keys: Keys, method: str, path: str, **more: Any) -> httpx.Response:
    """Send one request through a guard to an app that says how much it read."""

    async def size(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(len(await request.body())))

    everywhere = ["GET", "POST", "PUT", "DELETE"]
    app = Guard(Starlette(routes=[Route("/{any:path}", size, methods=everywhere)]), keys)

    async def main() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            return await client.request(method, path, **more)

    return asyncio.run(main())


def bearer(secret: str) -> dict[str, Any]:
    return {"headers": {"authorization": f"Bearer {secret}"}}


def test_only_the_hash_of_a_key_is_stored(keys: Keys) -> None:
    secret = keys.add("app", "read,write", 5)
    assert secret.startswith("rk_")
    assert len(secret) > 40
    stored = keys.file.read_text()
    assert secret not in stored
    assert json.loads(stored)["keys"][0] == {**json.loads(stored)["keys"][0], "name": "app", "scopes": ["read", "write"], "rate": 5.0}
    assert json.loads(stored)["keys"][0]["sha256"] == digest(secret)
    found = Keys(keys.file).find(secret)
    assert found is not None
    assert (found.name, found.scopes, found.rate) == ("app", ("read", "write"), 5.0)
    assert Keys(keys.file).find(secret[:-1]) is None


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("app", "red"), "there is no scope 'red'; did you mean 'read'? allowed: admin, read, write"),
        (("app", " , "), "a key needs a scope; there are: read, write, admin"),
        (("my app", "read"), "a key's name is 1 to 64 letters, digits, '_', '-' or '.'; got 'my app'"),
        (("app", "read", -1.0), "a rate is in requests a second, 0 for as many as come; got -1.0"),
        (("there", "read"), "there is a key 'there' already; remove it first: recsys keys remove there"),
    ],
)
def test_a_key_that_makes_no_sense_is_refused(keys: Keys, words: tuple[Any, ...], says: str) -> None:
    keys.add("there", "admin")
    with pytest.raises(BadInput) as told:
        keys.add(*words)
    assert str(told.value) == says


def test_a_key_that_was_removed_is_nobodys(keys: Keys) -> None:
    secret = keys.add("app", "read")
    keys.add("other", "read")
    keys.remove("app")
    assert Keys(keys.file).find(secret) is None
    with pytest.raises(BadInput, match="there is no key 'ap'; allowed: other"):
        keys.remove("ap")


def test_without_keys_everybody_may_do_everything(keys: Keys) -> None:
    assert [ask(keys, method, "/v1/users/ann").status_code for method in ("GET", "POST", "DELETE")] == [200] * 3


def test_with_keys_each_may_what_its_scopes_say(keys: Keys) -> None:
    reader, writer, admin = (keys.add(scope, scope) for scope in ("read", "write", "admin"))
    requests = {("GET", "/v1/recommend/ann"): reader, ("POST", "/v1/recommend"): reader, ("POST", "/v1/events"): writer}
    requests |= {("POST", "/v1/users/ann/merge"): writer, ("PUT", "/v1/items/7"): admin, ("DELETE", "/v1/users/ann"): admin}
    requests |= {("GET", "/metrics"): reader}
    for (method, path), allowed in requests.items():
        for secret in (reader, writer, admin):
            answer = ask(keys, method, path, **bearer(secret))
            assert answer.status_code == (200 if secret == allowed else 403), (method, path)
    assert ask(keys, "POST", "/v1/events", **bearer(reader)).json() == {
        "detail": "key 'read' may read; POST /v1/events needs the scope 'write'"
    }
    assert ask(keys, "GET", "/v1/releases", headers={"x-api-key": reader}).status_code == 200


def test_who_has_no_key_or_a_wrong_one_is_told_the_way(keys: Keys) -> None:
    keys.add("app", "read")
    missing, wrong = ask(keys, "GET", "/v1/releases"), ask(keys, "GET", "/v1/releases", **bearer("rk_guessed"))
    assert (missing.status_code, wrong.status_code) == (401, 401)
    assert missing.json()["detail"] == "the API key is missing; send one as 'authorization: Bearer KEY'; make one with: recsys keys add"
    assert wrong.json()["detail"].startswith("the API key is no key of this server; ")
    assert missing.headers["www-authenticate"] == "Bearer"
    for path in ("/health/live", "/health/ready", "/openapi.json", "/docs"):
        assert ask(keys, "GET", path).status_code == 200


def test_a_running_server_notices_keys_within_a_second(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("serving.keys.monotonic", lambda: now[0])
    running = Keys(keys.file)
    assert not running.needed
    secret = keys.add("app", "read")
    assert not running.needed
    now[0] += 1
    assert running.find(secret) is not None
    keys.file.write_text("{")
    now[0] += 1
    assert running.find(secret) is not None  # a file that broke lets nobody in that was not known, and nobody out
    keys.file.unlink()
    now[0] += 1
    assert running.find(secret) is None
    assert running.needed  # whoever takes the last key away does not open the door


def test_taking_the_last_key_away_lets_nobody_in(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("serving.keys.monotonic", lambda: now[0])
    secret = keys.add("app", "admin")
    assert ask(keys, "DELETE", "/v1/users/ann", **bearer(secret)).status_code == 200
    keys.remove("app")
    now[0] += 1
    for more in ({}, bearer(secret)):
        assert ask(keys, "DELETE", "/v1/users/ann", **more).status_code == 401


def test_a_file_of_keys_that_is_broken_from_the_start_lets_nobody_in(keys: Keys) -> None:
    keys.file.parent.mkdir()
    keys.file.write_text("{")
    assert ask(keys, "GET", "/v1/releases").status_code == 401


def test_a_rate_lets_a_second_of_requests_through_at_once_and_then_so_many_a_second() -> None:
    buckets = Buckets()
    waits = [buckets.wait("app", 2, now) for now in (0, 0, 0, 0.25, 0.5, 0.5, 10, 10, 10)]
    assert waits == [0, 0, 0.5, 0.25, 0, 0.5, 0, 0, 0.5]
    assert [buckets.wait("slow", 0.1, now) for now in (0, 5, 10)] == [0, 5, 0]
    assert buckets.wait("another", 2, 10) == 0


def test_so_many_are_followed_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "PEOPLE", 3)
    buckets = Buckets()
    for name in "abcd":
        buckets.wait(name, 1, 0)
    assert list(buckets._left) == ["b", "c", "d"]


def test_beyond_its_rate_a_key_is_told_when_to_come_back(keys: Keys, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = keys.add("app", "read", 0.5)
    monkeypatch.setattr(guards, "monotonic", lambda: 0.0)
    app = Guard(Starlette(routes=[Route("/v1/releases", lambda request: PlainTextResponse(""))]), keys)

    async def main() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost") as client:
            return [await client.get("/v1/releases", **bearer(secret)) for _ in range(2)]

    first, second = asyncio.run(main())
    assert (first.status_code, second.status_code) == (200, 429)
    assert second.headers["retry-after"] == "2"
    assert second.json() == {"detail": "key 'app' may ask 0.5 times a second; try again in 2 s"}


def test_a_body_may_be_so_large_whether_it_says_so_or_not(keys: Keys) -> None:
    async def pieces(size: int) -> Any:
        for sent in range(0, size, 1000):
            yield b"x" * min(1000, size - sent)

    assert ask(keys, "POST", "/v1/events", content=b"x" * BODY).text == str(BODY)
    assert ask(keys, "POST", "/v1/events", content=pieces(BODY)).text == str(BODY)
    for content in (b"x" * (BODY + 1), pieces(BODY + 1)):
        assert ask(keys, "POST", "/v1/events", content=content).status_code == 413


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200), ("localhost:8000", 200), ("app.localhost", 200), ("127.0.0.1:8000", 200), ("[::1]:8000", 200), ("[::1]", 200),
        ("192.168.1.7:8000", 200), ("evil.example", 403), ("evil.example:8000", 403), ("localhost.evil.example", 403), ("", 403),
        ("[evil]", 403),
    ],
)  # fmt: skip
def test_without_keys_what_an_admin_does_is_for_this_machine_alone(keys: Keys, host: str, status: int) -> None:
    said = {"headers": {"host": host}}
    for method, path in (
        ("POST", "/v1/releases/rollback"), ("DELETE", "/v1/users/ann"), ("PUT", "/v1/items/i"), ("GET", "/v1/console/people"),
    ):  # fmt: skip
        answer = ask(keys, method, path, **said)
        assert answer.status_code == status
        assert status == 200 or "make a key: recsys keys add" in answer.json()["detail"]
    for method, path in (("GET", "/v1/recommend/ann"), ("POST", "/v1/events"), ("GET", "/console/"), ("GET", "/metrics")):
        assert ask(keys, method, path, **said).status_code == 200
    told = {**said["headers"], **bearer(keys.add("admin", "admin"))["headers"]}
    assert ask(Keys(keys.file), "DELETE", "/v1/users/ann", headers=told).status_code == 200, "a key says who"


@pytest.mark.parametrize(
    ("method", "path", "scope"),
    [("GET", "/v1/x", "read"), ("POST", "/v1/x", "write"), ("PUT", "/v1/x", "admin"), ("DELETE", "/", "admin")],
)
def test_what_a_request_needs(method: str, path: str, scope: str) -> None:
    assert scope_of(method, path) == scope


def test_a_served_home_with_a_key_asks_for_it(tmp_path: Path) -> None:
    publish(tmp_path)
    secret = Keys(Home(tmp_path).keys).add("app", "read,write")
    with served(tmp_path, host="0.0.0.0") as api:
        assert api.get("/v1/recommend/ann").status_code == 401
        assert api.get("/health/ready").status_code == 200
        api.headers.update(bearer(secret)["headers"])
        assert api.post("/v1/events", json=event("ann", "east")).json()["accepted"] == 1
        assert api.get("/v1/recommend/ann").status_code == 200
        large = api.post("/v1/events", content=json.dumps([event("ann", "x" * 250)] * 2000), headers={"content-type": "application/json"})
        assert large.status_code == 413
        described = api.get("/openapi.json").json()
        assert described["paths"]["/v1/events"]["post"]["security"] == [{}, {"bearer": []}, {"header": []}]
        assert {"401", "403", "413", "429"} <= set(described["paths"]["/v1/events"]["post"]["responses"])


def test_without_a_key_no_network_is_let_in(tmp_path: Path) -> None:
    publish(tmp_path)
    with start(tmp_path, host="0.0.0.0") as server:
        _, told = server.communicate(timeout=60)
    assert server.returncode == 1
    assert told.strip() == (
        "error: 0.0.0.0 can be reached from other machines, and this home has no API keys; make one with: recsys keys add NAME, "
        "or serve this machine alone with --host 127.0.0.1"
    )


def test_whoever_never_asked_before_the_last_key_was_taken_away_stays_outside_too(tmp_path: Path) -> None:
    publish(tmp_path)
    keys = Keys(Home(tmp_path).keys)
    keys.add("app", "read,write,admin")
    with served(tmp_path, host="0.0.0.0", workers=2) as api:
        keys.remove("app")
        time.sleep(1.1)
        for _ in range(10):
            with httpx.Client(base_url=api.base_url) as fresh:
                assert fresh.delete("/v1/users/ann").status_code == 401
    assert Keys(Home(tmp_path).keys).needed
    Home(tmp_path).keys.unlink()
    assert not Keys(Home(tmp_path).keys).needed
    assert Keys(Home(tmp_path).keys, needed=True).needed
