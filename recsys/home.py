"""Where everything lives: one folder, `--home`."""

from pathlib import Path

from recsys.errors import BadInput
from recsys.shared import Shared


class Home:
    """The folders of one recommender. Nothing is created before something is written.

    shared: the journal in a store that this home is a copy of, None where it is on its own (see recsys.joined).
    """

    def __init__(self, path: str | Path, shared: Shared | None = None):
        self.shared = shared
        self.path = Path(path).expanduser().absolute()
        if self.path.exists() and not self.path.is_dir():
            raise BadInput(f"{self.path} is a file; --home names a folder, which is made when first written to")
        self.log = self.path / "log"
        self.items = self.path / "items"
        self.releases = self.path / "releases"
        self.redis = self.path / "redis"
        self.store = self.path / "store"
        self.reports = self.path / "reports"
        self.job = self.path / "job"
        self.forgotten = self.path / "forgotten"
        self.keys = self.path / "keys" / "keys.json"
        self.rules = self.path / "rules.toml"
        self.config = self.path / "config.toml"

    def __repr__(self) -> str:
        return f"Home({str(self.path)!r})"
