"""Three machines on one store add events, put segments together, publish and forget people, each killed by -9 again and again; then
everything is counted.

python tests/chaos_store.py [seconds]: exit code 1 where an event was lost or doubled, homes differ, two releases have one parent, or a byte
in the bucket or in a home tells of somebody who was forgotten.
"""

import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from worlds import event_table

from recsys.errors import Superseded
from recsys.forgotten import Forgotten, asked, hashed
from recsys.hidden import did
from recsys.home import Home
from recsys.joined import open_home, pull
from recsys.log import Log
from recsys.registry import Registry
from recsys.settings import Settings, load_settings

MACHINES = 3


def settings(endpoint: str) -> Settings:
    return load_settings(overrides={"store.url": "s3://bucket/chaos", "store.endpoint": endpoint}, environ={})


def work(endpoint: str, folder: str, name: str) -> None:
    """Go on until killed; write down what was done once it was."""
    home, number = open_home(folder, settings(endpoint)), time.time_ns()
    log, registry, people = Log(home.log, home.shared), Registry(home.releases, home.shared), list[str]()
    with Path(folder).with_suffix(".done").open("a") as done:
        while True:
            user, ids = f"u-{name}-{number}-u", [f"{name}-{number + n}" for n in range(random.randint(1, 5))]
            number += len(ids)
            both = [(id, user) for id in ids] + [(f"everybodys-{time.time() // 0.5:.0f}", "everybody")]
            log.append(
                event_table([{"user_id": user, "item_id": "i", "event_type": "play", "timestamp": 0, "event_id": id} for id, user in both])
            )
            print(*(f"event {id} {user}" for id, user in both), sep="\n", file=done, flush=True)
            people.append(user)
            if random.random() < 0.4:
                log.compact()
            if random.random() < 0.2:
                forget(home, Forgotten(home.forgotten).begin(people.pop(random.randrange(len(people)))))
            if random.random() < 0.3:
                pull(home)
                try:
                    with registry.draft() as draft:
                        (draft / "towers").write_text(ids[0])
                        about = {"position": {"offset": 0, "until": None}}
                        release = registry.publish(draft, registry.next_id(), registry.current(), about)
                    print(f"parent {release.manifest['parent']}", file=done, flush=True)
                    registry.collect(3)
                except Superseded:
                    pass


def forget(home: Home, receipt: dict[str, Any]) -> None:
    """Forget somebody in the log alone, as serving.forget does it."""
    assert home.shared is not None
    home.shared.ask_to_forget(receipt["who"], asked(receipt))
    Log(home.log, home.shared).erase(partial(did, receipt))
    home.shared.purge()
    Forgotten(home.forgotten).write({**receipt, "completed": "now"})


def tells(home: Home, users: set[str]) -> int:
    """Return how many files of a home, and of the bucket, tell of somebody, Parquet unpacked."""
    assert home.shared is not None
    tables = [*home.log.glob("*.parquet"), *(BytesIO(home.shared.store.read(name)) for name in home.shared.store.names("log/"))]
    return sum(not users.isdisjoint(pq.read_table(table, columns=["user_id"])["user_id"].to_pylist()) for table in tables)


def main(seconds: float) -> bool:
    os.environ |= {"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    server = Path(__file__).with_name("s3.py")
    with (
        tempfile.TemporaryDirectory() as place,
        subprocess.Popen([sys.executable, str(server)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as store,
    ):
        assert store.stdout is not None
        assert store.stdin is not None
        endpoint = store.stdout.readline().strip()
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/bucket", method="PUT")).read()
        kills = kill_again_and_again(endpoint, place, seconds)
        done = [line.split() for name in range(MACHINES) for line in Path(place, f"{name}.done").read_text().splitlines()]
        parents = Counter(about[0] for what, *about in done if what == "parent")
        homes = [open_home(Path(place, name), settings(endpoint)) for name in ("0", "1", "2", "new")]
        for home in homes:
            pull(home)
            for receipt in Forgotten(home.forgotten).pending():
                forget(home, receipt)
            Log(home.log, home.shared).compact()
        forgotten = {receipt["who"] for receipt in Forgotten(homes[-1].forgotten).all()}
        told = {about[0] for what, *about in done if what == "event" and hashed(about[1]) not in forgotten}
        users = {about[1] for what, *about in done if what == "event" and hashed(about[1]) in forgotten}
        found, traces = [], 0
        for home in homes:
            pull(home)
            Registry(home.releases).open().verify()
            found.append(sorted(Log(home.log).read(columns=["event_id"])["event_id"].to_pylist()))
            traces += tells(home, users)
        store.stdin.close()
    lost, twice = len(told - set(found[0])), len(found[0]) - len(set(found[0]))
    alike, beside = all(each == found[0] for each in found), parents.total() - len(parents)
    print(f"{kills} kills, {len(told):,} events told to be in the log: {lost} lost, {twice} twice, {len(set(found[0]) - told)} not told")
    print(f"{parents.total()} releases told to be published: {beside} beside another; all homes alike: {alike}")
    print(f"{len(users)} people of {len(forgotten)} who were forgotten had been told of: {traces} files still tell of one")
    return alike and not (lost or twice or beside or traces)


def kill_again_and_again(endpoint: str, place: str, seconds: float) -> int:
    """Let the machines work, and kill each within ten seconds, until the time is up; return how often one was."""

    def started(name: int) -> tuple[subprocess.Popen[bytes], float]:
        command = [sys.executable, __file__, endpoint, f"{place}/{name}", str(name)]
        return subprocess.Popen(command), time.monotonic() + random.uniform(3, 10)

    machines, kills, over = {name: started(name) for name in range(MACHINES)}, 0, time.monotonic() + seconds
    try:
        while time.monotonic() < over:
            time.sleep(0.05)
            for name, (machine, until) in machines.items():
                assert machine.poll() is None, f"machine {name} ended by itself"
                if time.monotonic() > until:
                    machine.kill()
                    machine.wait()
                    machines[name] = started(name)
                    kills += 1
    finally:
        for machine, _ in machines.values():
            machine.kill()
            machine.wait()
    return kills


if __name__ == "__main__":
    if len(sys.argv) == 4:
        work(*sys.argv[1:])
    sys.exit(not main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0))
