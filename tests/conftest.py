"""What several tests need: a real Redis."""

import pytest
import redis

from serving.embedded import EmbeddedRedis


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with EmbeddedRedis(tmp_path_factory.mktemp("redis"), "everysec") as server:
        yield server


@pytest.fixture
def store(server):
    store = redis.Redis.from_url(server.url)
    store.flushall()
    return store
