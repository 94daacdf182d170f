"""Where everything lives: one folder, `--home`."""

from pathlib import Path


class Home:
    """The folders of one recommender. Nothing is created before something is written."""

    def __init__(self, path: str | Path):
        self.path = Path(path).expanduser().absolute()
        self.log = self.path / "log"
        self.items = self.path / "items"
        self.releases = self.path / "releases"
        self.redis = self.path / "redis"
        self.reports = self.path / "reports"
        self.config = self.path / "config.toml"

    def __repr__(self) -> str:
        return f"Home({str(self.path)!r})"
