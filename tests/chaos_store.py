"""Three machines on one store add events, put segments together and publish, each killed by -9 again and again; then everything is counted.

python tests/chaos_store.py [seconds]: exit code 1 where an event was lost or doubled, homes differ, or two releases have one parent.
"""

import os
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path

from worlds import event_table

from recsys.errors import Superseded
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
    log, registry = Log(home.log, home.shared), Registry(home.releases, home.shared)
    with Path(folder).with_suffix(".done").open("a") as done:
        while True:
            ids = [f"{name}-{number + n}" for n in range(random.randint(1, 5))]
            ids.append(f"everybodys-{time.time() // 0.5:.0f}")
            number += len(ids)
            log.append(event_table([{"user_id": "u", "item_id": "i", "event_type": "play", "timestamp": 0, "event_id": id} for id in ids]))
            print(*(f"event {id}" for id in ids), sep="\n", file=done, flush=True)
            if random.random() < 0.4:
                log.compact()
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
        told = {id for what, id in done if what == "event"}
        parents = Counter(id for what, id in done if what == "parent")
        homes = [open_home(Path(place, name), settings(endpoint)) for name in ("0", "1", "2", "new")]
        for home in homes:
            pull(home)
            Log(home.log, home.shared).compact()
        found = []
        for home in homes:
            pull(home)
            Registry(home.releases).open().verify()
            found.append(sorted(Log(home.log).read(columns=["event_id"])["event_id"].to_pylist()))
        store.stdin.close()
    lost, twice = len(told - set(found[0])), len(found[0]) - len(set(found[0]))
    alike, beside = all(each == found[0] for each in found), parents.total() - len(parents)
    print(f"{kills} kills, {len(told):,} events told to be in the log: {lost} lost, {twice} twice, {len(set(found[0]) - told)} not told")
    print(f"{parents.total()} releases told to be published: {beside} beside another; all homes alike: {alike}")
    return alike and not (lost or twice or beside)


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
