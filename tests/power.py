"""A disk that loses power: what was written and not synced may be there, torn, or gone, whichever is worst.

`trace` notes what a piece of work does to the disk: names that appear, change and go, and what is synced. `crash` gives the disk as it
may be after the power went at some moment: a name is sure once its folder was synced behind it, a content once its file was; of all other
names each may have reached the disk or not, by itself, and other contents may be whole, cut off or empty.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

_listening: list[Callable[[str, tuple[Any, ...]], None]] = []


def _hook(event: str, words: tuple[Any, ...]) -> None:
    for listen in _listening:
        listen(event, words)


sys.addaudithook(_hook)  # there is no way to take one away; it costs nothing while nobody listens


@dataclass(eq=False)
class Node:
    """A file or folder, whatever its name: what a folder held when the trace began, what a file holds at last."""

    folder: bool
    content: bytes = b""
    children: dict[str, "Node"] = field(default_factory=dict)


@dataclass
class Step:
    """One thing that happened: names in folders that now mean another node (None: nothing), a node that was synced, or a word of ours."""

    names: list[tuple[Node, str, Node | None]] = field(default_factory=list)
    synced: Node | None = None
    said: str = ""


@dataclass
class Trace:
    """All that happened under a root, in order."""

    root: Node
    steps: list[Step]

    def without(self, number: int) -> "Trace":
        """Return the same, had one of the syncs not been made."""
        which = self.syncs()[number]
        return Trace(self.root, [step for place, step in enumerate(self.steps) if place != which])

    def syncs(self) -> list[int]:
        """Return where something was synced."""
        return [place for place, step in enumerate(self.steps) if step.synced is not None]


@contextmanager
def trace(root: Path) -> Iterator[tuple[Trace, Callable[[str], None]]]:
    """Note what is done under a folder; also give what notes a word of ours, such as that something was acknowledged."""
    live: dict[str, Node] = {str(root): Node(True)}
    found = Trace(live[str(root)], [])

    def inside(path: Any) -> str | None:
        name = os.path.abspath(os.fsdecode(path)) if isinstance(path, (str, bytes, os.PathLike)) else ""
        return name if name.startswith(f"{root}/") else None

    def named(path: str, node: Node | None) -> tuple[Node, str, Node | None]:
        folder, name = os.path.split(path)
        return live[folder], name, node

    def meet(path: str) -> None:
        """Note a file that was made without Python knowing, as Arrow makes its own."""
        if path not in live and os.path.exists(path):
            live[path] = Node(os.path.isdir(path))
            found.steps.append(Step([named(path, live[path])]))

    def note(event: str, words: tuple[Any, ...]) -> None:
        name = words[0] if words else None
        if event in ("os.remove", "os.rmdir") and words[1] >= 0:  # as shutil.rmtree does it: a name in an open folder
            name = os.path.join(os.readlink(f"/proc/self/fd/{words[1]}"), os.fsdecode(name))
        path = inside(name)
        if path is None:
            return
        if event == "os.mkdir":
            live[path] = Node(True)
            found.steps.append(Step([named(path, live[path])]))
        elif event == "open" and words[2] & (os.O_WRONLY | os.O_RDWR) and path not in live:
            live[path] = Node(False)
            found.steps.append(Step([named(path, live[path])]))
        elif event in ("os.remove", "os.rmdir") and path in live:
            found.steps.append(Step([named(path, None)]))
            del live[path]
        elif event in ("os.rename", "os.link"):
            target, keep = os.path.abspath(os.fsdecode(words[1])), event == "os.link"
            if (os.path.isdir(target) and not keep) or (keep and os.path.exists(target)):
                return  # it will fail
            meet(path)
            _hold(path, live)
            moved = {name: node for name, node in live.items() if name == path or name.startswith(f"{path}/")}
            names = [] if keep else [named(path, None)]
            for name, node in moved.items():
                live[target + name[len(path) :]] = node
                if not keep:
                    del live[name]
            found.steps.append(Step([*names, named(target, live[target])]))

    honest = os.fsync

    def synced(handle: int) -> None:
        path = os.readlink(f"/proc/self/fd/{handle}")
        if inside(path):
            meet(path)
        if path in live:
            _hold(path, live)
            found.steps.append(Step(synced=live[path]))
        honest(handle)

    _listening.append(note)
    try:
        with mock.patch("os.fsync", synced):
            yield found, lambda said: found.steps.append(Step(said=said))
    finally:
        _listening.remove(note)
        for path in live:
            _hold(path, live)


def _hold(path: str, live: dict[str, Node]) -> None:
    """Keep what files hold now, of one or of all in a folder."""
    for name, node in live.items():
        if not node.folder and (name == path or name.startswith(f"{path}/")) and os.path.isfile(name):
            node.content = Path(name).read_bytes()


def crash(trace: Trace, at: int, rng: np.random.Generator) -> tuple[dict[str, Any], list[str]]:
    """Return the disk as it may be when the power went after so many steps, {name: bytes, or the same of a folder}, and what was said."""
    done = trace.steps[:at]
    last_sync: dict[int, int] = {}
    for place, step in enumerate(done):
        if step.synced is not None:
            last_sync[id(step.synced)] = place
    held: dict[int, dict[str, Node]] = {}
    for place, step in enumerate(done):
        sure = all(last_sync.get(id(folder), -1) > place for folder, _, _ in step.names)
        if step.names and (sure or rng.random() < 0.5):
            for folder, name, node in step.names:
                names = held.setdefault(id(folder), dict(folder.children))
                names.pop(name, None)
                if node is not None:
                    names[name] = node
    lost = {id(node): rng.random() for node in _all(trace.root, held)}

    def disk(node: Node) -> Any:
        if node.folder:
            return {name: disk(child) for name, child in held.get(id(node), node.children).items()}
        if id(node) in last_sync:
            return node.content
        luck = lost[id(node)]
        return node.content if luck < 1 / 3 else b"" if luck < 2 / 3 else node.content[: len(node.content) // 2]

    return disk(trace.root), [step.said for step in done if step.said]


def _all(node: Node, held: dict[int, dict[str, Node]]) -> Iterator[Node]:
    yield node
    if node.folder:
        for child in held.get(id(node), node.children).values():
            yield from _all(child, held)
