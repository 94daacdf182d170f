"""What the job decided, why, and what was found missing: lines of JSON that are only ever added to."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recsys.files import locked, sync

FILE = "journal.jsonl"


class Journal:
    """The journal of one home, H/job/journal.jsonl."""

    def __init__(self, folder: Path):
        self.folder = folder

    def add(self, what: str, **about: Any) -> dict[str, Any]:
        """Write a line and return it."""
        line = {"time": datetime.now(UTC).isoformat(timespec="seconds"), "what": what, **about}
        with locked(self.folder):
            path = self.folder / FILE
            with path.open("a+b") as file:
                torn = file.tell() > 0 and file.seek(-1, os.SEEK_END) >= 0 and file.read(1) != b"\n"  # by a power loss
                file.write(b"\n" * torn + json.dumps(line).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            sync(self.folder)
        return line

    def read(self) -> list[dict[str, Any]]:
        """Return all lines, oldest first; one that was torn by a power loss is passed over."""
        try:
            written = (self.folder / FILE).read_text(errors="replace")
        except FileNotFoundError:
            return []
        found = []
        for line in written.splitlines():
            try:
                found.append(json.loads(line))
            except ValueError:
                continue
        return found

    def rolled_back_to(self) -> str | None:
        """Return the release that somebody went back to, where nothing was published since."""
        for line in reversed(self.read()):
            if line["what"] in ("published", "promoted", "rolled back"):
                return line["release"] if line["what"] == "rolled back" else None
        return None

    def refusals(self) -> int:
        """Return how many updates of the job were refused, or fell behind on trial, since one went live."""
        count, tried = 0, set()
        for line in self.read():
            if line["what"] in ("published", "promoted"):
                count = 0
            elif line["what"] == "on trial":
                tried.add(line["release"])
            else:
                count += line["what"] == "refused" or (line["what"] == "trial ended" and line["release"] in tried)
        return count
