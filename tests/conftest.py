"""What several tests need: a real Redis, and one thread for torch."""

import pytest
import redis
import torch

from serving.embedded import EmbeddedRedis


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
