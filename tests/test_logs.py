"""What a server writes about itself: ids of requests, never of people."""

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from test_api import event, publish, start
from test_cli import shell

from recsys.home import Home
from serving.metrics import Measured, Metrics


def test_each_request_is_a_line_of_json_with_its_id_and_nobodys(tmp_path: Path) -> None:
    publish(tmp_path)
    process = start(tmp_path, log="json", access_log=True)
    assert process.stdout is not None
    url = process.stdout.readline().split(" on ")[1].split(",")[0]
    with httpx.Client(base_url=url) as client:
        answers = [
            client.post("/v1/events", json=event("somebody", "east")),
            client.get("/v1/recommend/somebody?k=2"),
            client.get("/v1/recommend/somebody?k=2&explain=true"),
            client.get("/v1/recommend/somebody?nonsense=1"),
            client.get("/nowhere/somebody"),
        ]
    process.terminate()
    _, written = process.communicate(timeout=20)
    lines = [json.loads(line) for line in written.splitlines()]
    asked = [line for line in lines if line["logger"] == "recsys.requests"]
    assert [(line["method"], line["route"], line["status"]) for line in asked] == [
        ("POST", "/v1/events", 200),
        ("GET", "/v1/recommend/{user_id:id}", 200),
        ("GET", "/v1/recommend/{user_id:id}", 200),
        ("GET", "/v1/recommend/{user_id:id}", 422),
        ("GET", "none", 404),
    ]
    assert [line["request_id"] for line in asked] == [answer.headers["x-request-id"] for answer in answers]
    assert [answer.json()["request_id"] for answer in answers[:3]] == [line["request_id"] for line in asked[:3]]
    assert all(line["ms"] > 0 and line["level"] == "info" and line["time"].startswith("20") for line in asked)
    assert "somebody" not in written
    assert {"logger": "recsys.engine", "message": "release 000001 is live"}.items() <= lines[0].items()


def test_a_request_that_fails_is_in_the_log_and_the_client_is_told_where(caplog: pytest.LogCaptureFixture) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise ZeroDivisionError("oh")

    sent: list[dict[str, Any]] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/x", "headers": []}
    asyncio.run(Measured(broken, Metrics())(scope, None, send))  # type: ignore[arg-type]
    id = dict(sent[0]["headers"])[b"x-request-id"].decode()
    assert sent[0]["status"] == 500
    assert "x-request-id" in json.loads(sent[1]["body"])["detail"]
    assert [record.request_id for record in caplog.records] == [id]  # type: ignore[attr-defined]
    assert "ZeroDivisionError" in caplog.text


def test_status_says_what_a_profile_takes_where_redis_runs(tmp_path: Path) -> None:
    publish(tmp_path)
    process = start(tmp_path)
    assert process.stdout is not None
    url = process.stdout.readline().split(" on ")[1].split(",")[0]
    try:
        with httpx.Client(base_url=url) as client:
            now = time.time()
            for user in ("ann", "bob", "eve"):
                told = [{**event(user, f"item-{n}"), "timestamp": now - n} for n in range(50)]
                assert client.post("/v1/events", json=told).json()["accepted"] == 50
        found = json.loads(shell("status", "--home", tmp_path, "--json", folder=tmp_path).out)["profiles"]
        assert found["users"] == 3
        assert 50 * 60 < found["bytes_per_user"] < 50 * 400
    finally:
        process.terminate()
        process.communicate(timeout=20)
    assert json.loads(shell("status", "--home", tmp_path, "--json", folder=tmp_path).out)["profiles"] is None
    assert not Home(tmp_path).config.exists()
