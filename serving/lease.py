"""Who may run the job: one at a time, by a lease in Redis that ends with its holder."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import redis

SECONDS = 60
"""A lease that nobody renews ends after so long; it is renewed three times as often."""

RENEW = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('EXPIRE', KEYS[1], ARGV[2]) end return 0"
END = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


@contextmanager
def lease(url: str, tenant: str, seconds: int = SECONDS) -> Iterator[int | None]:
    """Hold the job's lease of a tenant; give its token, counted up from holder to holder, or None while another job holds it.

    It keeps two jobs from doing the same work. That only one of them publishes does not hang on it: a process may sleep longer than any
    lease, so the registry refuses whoever is not the child of the live release.
    """
    key = f"{{{tenant}}}:job"
    with redis.Redis.from_url(url, socket_timeout=5, socket_connect_timeout=1) as client:
        token = int(client.incr(f"{key}:token"))
        if not client.set(key, token, nx=True, ex=seconds):
            yield None
            return
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
