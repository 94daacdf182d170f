"""What several tests need: a real Redis, and one thread for torch."""

from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import redis
import torch
from browser import browser, console, own, page, pages, pytest_terminal_summary, small  # noqa: F401

from serving.embedded import EmbeddedRedis

hypothesis.settings.register_profile("the same at every run", derandomize=True)
hypothesis.settings.load_profile("the same at every run")


@pytest.fixture(scope="session", autouse=True)
def one_thread():
    """Train as the defaults do: two threads add up in another order than one."""
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with EmbeddedRedis(tmp_path_factory.mktemp("redis"), "everysec") as server:
        yield server


@pytest.fixture
def store(server):
    store = redis.Redis.from_url(server.url)
    store.flushall()
    return store


@pytest.fixture(scope="module")
def exported_once() -> Iterator[None]:
    """Export the graph of each shape of tower once: it takes seconds."""
    from training import export

    graphs: list[Any] = []
    honest = export._exported

    def remembered(tower: Any) -> Any:
        for known in graphs:
            graph = type(known)()
            graph.CopyFrom(known)
            if (found := export._with_weights(graph, tower)) is not None:
                return found
        graphs.append(honest(tower))
        return remembered(tower)

    remembered.honest = honest  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "_exported", remembered)
        yield


@pytest.fixture
def exported_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Export every graph, whatever another test of the module may remember."""
    from training import export

    monkeypatch.setattr(export, "_exported", getattr(export._exported, "honest", export._exported))
