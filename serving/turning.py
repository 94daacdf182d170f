"""What somebody asks of the releases over HTTP: done as the command does it, in a thread, and said in one line where it cannot be."""

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import HTTPException, Request

from recsys.errors import BadInput, RecsysError, ReleaseDamaged, ReleaseNotFound, Superseded
from recsys.home import Home
from recsys.joined import pull
from recsys.turns import Turn
from serving.answers import not_now
from serving.engine import Engine

T = TypeVar("T")


async def acted(request: Request, act: Callable[[Home], T]) -> T:
    """Do something to the releases of this server's home, and serve by it; raise what an answer says where it cannot be done."""
    home, engine = request.app.state.home, request.app.state.engine

    def done() -> T:
        pull(home)  # where a store is shared, of all that is there
        result = act(home)
        engine.refresh()  # here at once; other workers follow within a second
        return result

    try:
        return await asyncio.to_thread(done)
    except ReleaseNotFound as error:
        raise HTTPException(404, str(error)) from None
    except (BadInput, ReleaseDamaged, Superseded) as error:
        raise HTTPException(409, str(error)) from None
    except RecsysError as error:
        raise not_now(str(error)) from None
    except OSError as error:
        raise not_now(f"the releases cannot be changed: {error.strerror or error}; look which one is live, and try again") from None


async def turned(request: Request, act: Callable[[Home], object]) -> dict[str, Any]:
    """Do something to the releases; return how things stand then."""
    engine: Engine = request.app.state.engine
    turn = await acted(request, act)
    live, trial, serving = engine.registry.current(), engine.trials.now(), engine.snapshot
    return {
        "live": live,
        "was": turn.was if isinstance(turn, Turn) else live,
        "trial": trial and vars(trial),
        "serving": serving.id if serving else None,
    }
