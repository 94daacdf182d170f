"""How fast the profiles are filled from the log when a server starts."""

from benchmarks.measure import Figure, scratch, seconds
from recsys.home import Home
from recsys.log import Log
from recsys.settings import load_settings
from recsys.simulate import simulate
from serving.embedded import EmbeddedRedis
from serving.warm import COLUMNS, warm


def run(quick: bool = False) -> list[Figure]:
    """Fill the profiles of a simulated log; the floor is reading the log."""
    loaded = 0
    with scratch() as folder, EmbeddedRedis(folder / "redis", "always") as server:
        home, settings = Home(folder), load_settings(environ={})
        simulate(home, users=500 if quick else 5000, items=500, days=30 if quick else 60)

        def work() -> None:
            nonlocal loaded
            loaded = warm(server.url, home, settings)

        took = seconds(work)
        floor = seconds(lambda: Log(home.log).read(columns=COLUMNS).to_pylist())
    return [Figure(f"profiles filled at start, {loaded:,} events", loaded / took, "events/s", loaded / floor, "the log as Python rows")]
