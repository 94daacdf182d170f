"""Results of `recsys evaluate` under a home's reports folder, for the console to open: a list of them, and each by its listed name."""

import asyncio
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import FileResponse, Response

from recsys.home import Home
from serving.strict import no_unknown_parameter

LARGEST = 32 * 1024 * 1024
"""Bytes of a result at most: a browser reads it at once, and one of 16 methods and 28 windows has half a million."""

MOST = 200
"""Results that are listed, newest first."""

RUN, RESULTS = "run.json", "results.json"
"""What a run's folder holds: what was asked, and what was found once it has finished (eval/run.py)."""

ABOUT = 256 * 1024
"""Bytes of a run.json that are read at most."""


results = APIRouter(prefix="/v1/console/results", include_in_schema=False, dependencies=[Depends(no_unknown_parameter)])


@results.get("")
async def listed(request: Request) -> dict[str, Any]:
    """Say which results there are, newest first, and which runs have not finished."""
    return await asyncio.to_thread(listing, _home(request).reports)


@results.get("/{name:path}")
async def one(request: Request, name: str) -> Response:
    """Return a result as it stands in its file. Whether it is one, the reader finds out: parsing it here would hold up who is served."""
    path = await asyncio.to_thread(_found, _home(request).reports, name)
    return FileResponse(path, media_type="application/json", headers={"cache-control": "no-cache"})


def listing(reports: Path) -> dict[str, Any]:
    """Return the results under a reports folder: name, bytes, when they were written (ms) and, of a run, what it was asked."""
    found = sorted(_candidates(reports), key=lambda each: each[1].st_mtime, reverse=True)
    shown = [
        {"name": name, "bytes": stat.st_size, "modified": int(stat.st_mtime * 1000), **_asked(reports, name)} for name, stat in found[:MOST]
    ]
    unfinished = sorted(path.parent.name for path in reports.glob(f"*/{RUN}") if not (path.parent / RESULTS).exists())
    return {"folder": str(reports), "results": shown, "left_out": len(found) - len(shown), "unfinished": unfinished[:MOST]}


def _candidates(reports: Path) -> list[tuple[str, os.stat_result]]:
    """Return every file that may be a result, by its name: *.json of the folder, results.json of the runs in it; no link out of it."""
    inside, found = reports.resolve(), []
    for path in [*reports.glob("*.json"), *reports.glob(f"*/{RESULTS}")]:
        with suppress(OSError):  # gone since
            real = path.resolve(strict=True)
            if real.is_relative_to(inside) and real.is_file():
                found.append((path.relative_to(reports).as_posix(), real.stat()))
    return found


def _found(reports: Path, name: str) -> Path:
    """Return the path of a listed name; 404 where none has it, 422 where it is too large."""
    size = {each: stat.st_size for each, stat in _candidates(reports)}.get(name)
    if size is None:
        raise HTTPException(404, f"there is no result {name[:80]!r} under {reports}; GET /v1/console/results lists those there are")
    if size > LARGEST:
        way_out = "leave methods or windows out of it with `recsys evaluate`, or read its --report instead"
        raise HTTPException(422, f"{name[:80]!r} has {size / 1e6:.0f} MB, and the console opens {LARGEST / 1e6:.0f} MB at most; {way_out}")
    return reports / name


def _asked(reports: Path, name: str) -> dict[str, Any]:
    """Return what a run was asked, as far as its folder can be read."""
    about = (reports / name).parent / RUN
    if "/" not in name:
        return {}
    try:
        if about.stat().st_size > ABOUT:
            return {}
        question = json.loads(about.read_bytes())["question"]
        return {"protocol": str(question["protocol"]), "methods": [str(name) for name in question["methods"]][:100]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # it is still listed; opening it tells what is wrong


def _home(request: Request) -> Home:
    home: Home = request.app.state.home
    return home
