"""A data set is fetched once, checked, and kept whole or not at all. Everything here happens on 127.0.0.1."""

import io
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from recsys import download
from recsys.download import DataSet, DownloadFailed, fetch
from recsys.errors import BadInput

RATINGS, MOVIES = "userId,movieId,rating,timestamp\n1,2,3.5,1000000000\n", "movieId,title,genres\n2,Heat (1995),Crime\n"


def zipped(**extra: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in {"small/ratings.csv": RATINGS, "small/movies.csv": MOVIES, **extra}.items():
            archive.writestr(name, content)
    return buffer.getvalue()


class Shop:
    """A web server with one thing on offer; it counts how often it was asked."""

    def __init__(self) -> None:
        self.content, self.asked, self.short_by, self.status = zipped(), 0, 0, 200
        shop = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                shop.asked += 1
                self.send_response(shop.status)
                self.send_header("Content-Length", str(len(shop.content)))
                self.end_headers()
                self.wfile.write(shop.content[: len(shop.content) - shop.short_by])

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/small.zip"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    shop = Shop()
    monkeypatch.setitem(download.DATA_SETS, "small", DataSet(shop.url, "small/ratings.csv", "small/movies.csv"))
    yield shop
    shop.close()


def test_what_was_fetched_is_kept_and_not_fetched_again(shop: Shop, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    events, items = fetch("small", tmp_path, lambda what, done, total: seen.append((done, total)))
    assert (events.read_text(), items.read_text()) == (RATINGS, MOVIES)
    assert seen[-1] == (len(shop.content), len(shop.content))
    assert fetch("small", tmp_path) == (events, items)
    assert shop.asked == 1
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["movies.csv", "ratings.csv", "small"]


def test_a_file_taken_from_the_cache_is_fetched_again(shop: Shop, tmp_path: Path) -> None:
    fetch("small", tmp_path).items.unlink()
    assert fetch("small", tmp_path).items.read_text() == MOVIES
    assert shop.asked == 2


def test_the_cache_is_where_the_environment_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shop: Shop) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert fetch("small").events == tmp_path / "cache/recsys/small/ratings.csv"


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ({"content": zipped(**{"../../evil.txt": "x"})}, r"holds '../../evil.txt', which points out of its folder"),
        ({"content": zipped(**{"/etc/evil": "x"})}, r"holds '/etc/evil', which points out of its folder"),
        ({"content": b"<html>sorry</html>"}, "is not a sound zip"),
        ({"content": zipped()[:-30]}, "is not a sound zip"),
        ({"content": zipped().replace(b"small/movies.csv", b"small/m0vies.csv")}, "no longer holds small/movies.csv"),
        ({"short_by": 40}, "broke off after|cannot fetch"),
        ({"status": 404}, "cannot fetch .*: Not Found; without a network, make a log with `recsys simulate`"),
    ],
)
def test_a_spoilt_download_leaves_nothing_behind(shop: Shop, tmp_path: Path, spoil: dict, message: str) -> None:
    for name, value in spoil.items():
        setattr(shop, name, value)
    with pytest.raises(DownloadFailed, match=message) as caught:
        fetch("small", tmp_path / "cache")
    assert len(str(caught.value).splitlines()) == 1
    assert not list(tmp_path.rglob("*.*"))


def test_what_is_too_large_is_left_there(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "MAX_UNPACKED", 10)
    with pytest.raises(DownloadFailed, match="unpacks to more than"):
        fetch("small", tmp_path)
    monkeypatch.setattr(download, "MAX_PACKED", 10)
    with pytest.raises(DownloadFailed, match="is larger than"):
        fetch("small", tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_a_network_the_way_out_is_named(shop: Shop, tmp_path: Path) -> None:
    shop.close()
    with pytest.raises(
        DownloadFailed, match=r"cannot fetch .*: .*; without a network, make a log with `recsys simulate` or bring your own"
    ):
        fetch("small", tmp_path)
    shop.server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)  # so that it can be closed once more
    threading.Thread(target=shop.server.serve_forever, args=(0.01,), daemon=True).start()


def test_an_unknown_name_lists_the_names(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="there is no data set 'netflix'; allowed: movielens-latest-small"):
        fetch("netflix", tmp_path)
