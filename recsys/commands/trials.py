"""What is on trial, and what servers measured of it."""

import time
from typing import Any

from recsys.commands.terminal import read_settings
from recsys.home import Home
from recsys.settings import Settings


def outcomes_since(home: Home, settings: Settings, since: int) -> list[Any]:
    """Return what a server measured from a moment on, ms; nothing where no Redis answers."""
    import redis

    from serving.embedded import running
    from serving.online import outcomes

    url = settings.serving.redis_url or running(home.redis)
    if not url:
        return []
    try:
        with redis.Redis.from_url(url, socket_timeout=10, socket_connect_timeout=1) as client:
            return outcomes(client, settings.serving.tenant, since)
    except redis.RedisError:
        return []


def running_trial(home: Home) -> dict[str, Any] | None:
    """Return what is on trial and how it compares; None where nothing is."""
    from recsys.trial import Trials
    from serving.behind import Tally

    trial = Trials(home.releases).now()
    if trial is None:
        return None
    measured = [one for one in outcomes_since(home, read_settings(home.path, None, None), trial.began) if one.trial == trial.began]
    return {**vars(trial), "so_far": str(Tally("shadow" if trial.shadow else "canary").add(measured).comparison())}


def told_of_trial(trial: dict[str, Any] | None) -> str:
    """Say in a line what is on trial."""
    if trial is None:
        return "none"
    how, since = "a shadow for" if trial["shadow"] else "shown to", time.strftime("%Y-%m-%d %H:%M", time.gmtime(trial["began"] / 1000))
    return f"release {trial['release']}, {how} {trial['share']:.2%} of the people since {since} UTC: {trial['so_far']}"
