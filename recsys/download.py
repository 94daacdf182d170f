"""Public data sets, fetched once and kept: `recsys data get NAME`."""

import http.client
import os
import shutil
import urllib.error
import urllib.request
import uuid
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from recsys.errors import BadInput, RecsysError, nearest
from recsys.progress import Step, silent

TIMEOUT = 20.0
MAX_PACKED, MAX_UNPACKED = 200 << 20, 1 << 30
_CHUNK = 1 << 18


class DownloadFailed(RecsysError):
    """The data set is not to be had now; nothing of it was kept."""


class Files(NamedTuple):
    """A data set on this machine."""

    events: Path
    items: Path


@dataclass(frozen=True)
class DataSet:
    """A zip somewhere, and which of its members are the events and the item metadata."""

    url: str
    events: str
    items: str


DATA_SETS = {
    "movielens-latest-small": DataSet(
        "https://files.grouplens.org/datasets/movielens/ml-latest-small.zip",
        "ml-latest-small/ratings.csv",
        "ml-latest-small/movies.csv",
    ),
}


def default_cache() -> Path:
    """Return the folder that downloads are kept in: $XDG_CACHE_HOME/recsys or ~/.cache/recsys."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "recsys"


def fetch(name: str, cache: Path | None = None, step: Step = silent) -> Files:
    """Return the files of a public data set; download it where the cache does not have it yet."""
    if name not in DATA_SETS:
        raise BadInput(f"there is no data set {name!r}; {nearest(name, DATA_SETS)}")
    wanted = DATA_SETS[name]
    folder = (cache or default_cache()) / name
    files = Files(*(folder / PurePosixPath(member).name for member in (wanted.events, wanted.items)))
    if all(path.is_file() for path in files):
        return files
    draft = folder.with_name(f".{name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        draft.mkdir(parents=True)
        _download(wanted.url, draft / "packed.zip", f"fetching {name}", step)
        _unpack(draft / "packed.zip", (wanted.events, wanted.items), draft, wanted.url)
        (draft / "packed.zip").unlink()
        shutil.rmtree(folder, ignore_errors=True)  # a cache from which somebody took a file
        draft.rename(folder)
    except OSError as error:
        if not all(path.is_file() for path in files):  # else another process was quicker
            raise DownloadFailed(f"{folder} cannot be written: {error}; name another cache in XDG_CACHE_HOME") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return files


def _download(url: str, path: Path, what: str, step: Step) -> None:
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer, path.open("wb") as file:
            total, done = int(answer.headers.get("Content-Length") or 0), 0
            while part := answer.read(_CHUNK):
                file.write(part)
                done += len(part)
                if done > MAX_PACKED:
                    raise DownloadFailed(f"{url} is larger than {MAX_PACKED >> 20} MB, which is not what it was; nothing was kept")
                step(what, done, max(total, done))
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ValueError) as error:
        reason = getattr(error, "reason", error)
        way_out = "without a network, make a log with `recsys simulate` or bring your own with `recsys import FILE`"
        raise DownloadFailed(f"cannot fetch {url}: {reason}; {way_out}") from None
    if done < total:
        raise DownloadFailed(f"{url} broke off after {done:,} of {total:,} bytes; nothing was kept, try again")


def _unpack(packed: Path, members: tuple[str, ...], folder: Path, url: str) -> None:
    """Take the wanted members out of a zip that holds nothing suspicious."""
    try:
        with zipfile.ZipFile(packed) as archive:
            for info in archive.infolist():
                name = PurePosixPath(info.filename.replace("\\", "/"))
                if name.is_absolute() or ".." in name.parts:
                    raise DownloadFailed(f"{url} holds {info.filename!r}, which points out of its folder; nothing was kept")
            if sum(info.file_size for info in archive.infolist()) > MAX_UNPACKED:
                raise DownloadFailed(f"{url} unpacks to more than {MAX_UNPACKED >> 20} MB; nothing was kept")
            missing = [member for member in members if member not in archive.namelist()]
            if missing:
                raise DownloadFailed(f"{url} no longer holds {', '.join(missing)}; nothing was kept")
            for member in members:
                with archive.open(member) as source, (folder / PurePosixPath(member).name).open("wb") as target:
                    shutil.copyfileobj(source, target)
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise DownloadFailed(f"what came from {url} is not a sound zip: {error}; nothing was kept, try again") from None
