"""Files in object storage, through fsspec. One thing is asked of a store: to put a file only where none is, whole or not at all."""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from recsys.errors import BadInput, RecsysError

MARKER = "recsys"
"""A file that is put once: whoever puts it again must be told that it is there."""

ATTEMPTS = 3
"""So often a request is made, some seconds apart at most, before the store counts as away."""

_TAKEN = ("PreconditionFailed", "ConditionalRequestConflict", "412", "409")


class StoreAway(RecsysError, OSError):
    """The store did not answer, or not as it should; what was asked of it can be asked again."""


class Store:
    """A folder in a bucket. Credentials come from where the S3 client finds them: the environment, ~/.aws, the machine's role."""

    def __init__(self, url: str, endpoint: str = ""):
        protocol, _, path = url.partition("://")
        if protocol != "s3":
            raise BadInput(
                f"the store {_shown(url)!r} cannot put a file only where none is, whole or not at all, which publishing needs; "
                "name s3://BUCKET/FOLDER, or leave store.url empty for a local folder"
            )
        if not path.strip("/") or "@" in path + endpoint:
            raise BadInput(
                f"store.url is s3://BUCKET/FOLDER, store.endpoint an address, and credentials come from the environment; "
                f"got {_shown(url)!r} and {_shown(endpoint)!r}"
            )
        self.url, self.endpoint = f"s3://{path.strip('/')}", endpoint

    def __reduce__(self) -> tuple[type["Store"], tuple[str, str]]:
        return Store, (self.url, self.endpoint)  # a connection stays in its process

    def put_if_absent(self, name: str, content: bytes) -> None:
        """Put a file; raise FileExistsError where one is, whoever put it, unless it is this very one."""
        with self._asked():
            try:
                self._files.pipe_file(self._path(name), content, mode="create")
            except OSError as error:
                if not isinstance(error, FileExistsError) and _code(error) not in _TAKEN:
                    raise
                if self._mine(name, content):
                    return  # put by an earlier try of this request, whose answer was lost
                raise FileExistsError(name) from None

    def put(self, files: dict[str, Path]) -> None:
        """Put files, by name; those that are there are replaced."""
        with self._asked():
            self._files.put([str(path) for path in files.values()], [self._path(name) for name in files])

    def get(self, files: dict[str, Path]) -> None:
        """Bring files down; raise FileNotFoundError where one is not there."""
        with self._asked():
            self._files.get([self._path(name) for name in files], [str(path) for path in files.values()])

    def read(self, name: str) -> bytes:
        """Return what is in a small file; raise FileNotFoundError where there is none."""
        with self._asked():
            content: bytes = self._files.cat_file(self._path(name), max_concurrency=1)  # one request: its size is not asked first
            return content

    def names(self, under: str = "") -> dict[str, datetime]:
        """Return the files under a folder, in order, and when each was put."""
        with self._asked():
            found = self._files.find(self._path(under), detail=True)
        return {name[len(self._path("")) :]: about["LastModified"] for name, about in sorted(found.items())}

    def remove(self, names: list[str]) -> None:
        """Remove files; those that are not there are passed over."""
        with self._asked():
            for first in range(0, len(names), 1000):
                self._deleted([self._path(name) for name in names[first : first + 1000]])

    def ask(self) -> None:
        """Raise BadInput where a file can be put on top of another that must not be there."""
        for _ in range(2):
            try:
                self.put_if_absent(MARKER, uuid.uuid4().hex.encode())
            except FileExistsError:
                return
        raise BadInput(
            f"the store {self.url}{f' at {self.endpoint}' if self.endpoint else ''} puts a file where one is, though it was asked not to "
            "(If-None-Match); two machines would publish over each other there. Take a server that can, or leave store.url empty"
        )

    def keeps_versions(self) -> bool:
        """Say whether the bucket keeps what is replaced or removed; False where it does not tell."""
        try:
            with self._asked():
                told = self._files.call_s3("get_bucket_versioning", Bucket=self._path("").split("/")[0])
        except RecsysError:
            return False
        return bool(told.get("Status") == "Enabled")

    @cached_property
    def _files(self) -> Any:
        try:
            import s3fs
        except ImportError:
            raise BadInput("a store needs the extra s3: pip install 'recsys[s3]'") from None
        return s3fs.S3FileSystem(
            endpoint_url=self.endpoint or None,
            use_listings_cache=False,
            config_kwargs={"connect_timeout": 5, "read_timeout": 30, "retries": {"max_attempts": ATTEMPTS, "mode": "standard"}},
        )

    def _path(self, name: str) -> str:
        return f"{self.url.removeprefix('s3://')}/{name}"

    def _mine(self, name: str, content: bytes) -> bool:
        try:
            return bool(self._files.cat_file(self._path(name), max_concurrency=1) == content)
        except FileNotFoundError:
            return False

    def _deleted(self, paths: list[str]) -> None:
        bucket = paths[0].split("/")[0]
        keys = [{"Key": path.removeprefix(f"{bucket}/")} for path in paths]
        self._files.call_s3("delete_objects", Bucket=bucket, Delete={"Objects": keys, "Quiet": True})

    @contextmanager
    def _asked(self) -> Iterator[None]:
        _ = self._files  # says what to install, where that is missing
        from botocore.exceptions import BotoCoreError

        try:
            yield
        except (FileExistsError, FileNotFoundError) as error:
            if _code(error) == "NoSuchBucket":
                raise StoreAway(f"there is no bucket {self.url.split('/')[2]!r}; make it first, or name another in store.url") from None
            raise
        except (OSError, BotoCoreError) as error:
            if _code(error) == "NotImplemented":
                raise BadInput(
                    f"the store {self.url} does not know what was asked of it: {error}; publishing needs If-None-Match"
                ) from None
            raise StoreAway(f"the store {self.url} cannot be used: {error or type(error).__name__}") from None


def _shown(url: str) -> str:
    """Return an address without the credentials that somebody may have written into it."""
    protocol, separator, path = url.partition("://")
    return f"{protocol}{separator}{path.rpartition('@')[2]}"


def _code(error: BaseException) -> str:
    """Return the store's own word for what went wrong."""
    answer = getattr(error.__cause__ or error, "response", None) or {}
    return str(answer.get("Error", {}).get("Code", ""))
