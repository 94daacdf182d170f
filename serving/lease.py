"""Who may run the job: one at a time, by a lease that ends with its holder."""

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import redis

from recsys.errors import BadInput, RecsysError
from recsys.files import locked

SECONDS = 60
"""A lease that nobody renews ends after so long; it is renewed three times as often."""

RENEW = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('EXPIRE', KEYS[1], ARGV[2]) end return 0"
END = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class Busy(RecsysError):
    """Another job is at work."""


@contextmanager
def lease(folder: Path, url: str, tenant: str, seconds: int = SECONDS) -> Iterator[int]:
    """Be the only job of a home while inside: on this machine by a lock in `folder` and, where a Redis is shared (url), on all of them.

    Gives a token, counted up from holder to holder, 0 without a Redis; raises Busy where another job is at work. It keeps two jobs from
    doing the same work. That only one of them publishes does not hang on it: a process may sleep longer than any lease, so the registry
    refuses whoever is not the child of the live release.
    """
    with ExitStack() as held:
        try:
            held.enter_context(locked(folder, busy="another job is at work on this machine"))
        except BadInput as error:
            raise Busy(str(error)) from None
        yield held.enter_context(_shared(url, f"{{{tenant}}}:job", seconds)) if url else 0


@contextmanager
def _shared(url: str, key: str, seconds: int) -> Iterator[int]:
    with redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=1) as client:
        token = int(client.incr(f"{key}:token"))
        if not client.set(key, token, nx=True, ex=seconds):
            raise Busy("another job is at work, on this machine or another")
        over = threading.Event()
        keeper = threading.Thread(target=_renew, args=(client, key, token, seconds, over), daemon=True)
        keeper.start()
        try:
            yield token
        finally:
            over.set()
            keeper.join()
            with suppress(redis.RedisError):  # else it ends by itself
                client.eval(END, 1, key, token)


def _renew(client: redis.Redis, key: str, token: int, seconds: int, over: threading.Event) -> None:
    while not over.wait(seconds / 3):
        try:
            client.eval(RENEW, 1, key, token, seconds)
        except redis.RedisError:
            continue  # Redis may be back the next time; until then the lease runs on
