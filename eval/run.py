"""The folder of a run: what was asked, and every answer as soon as there is one, so that a run that was stopped can go on."""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from zipfile import BadZipFile
from zlib import crc32

import numpy as np

from eval.answers import Answers, Asked
from eval.cost import Cost
from recsys.errors import BadInput
from recsys.files import LOCK, write_atomically, write_beside

ABOUT = "run.json"


class Run:
    """run.json, windows/0008.npz, answers/METHOD/seed0/0008.npz, releases/, logs/. Nothing in it is a pickle."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.releases = folder / "releases"
        self.logs = folder / "logs"

    def about(self) -> dict[str, Any]:
        """Return what this run is to answer and how it was asked; BadInput where there is no run."""
        try:
            return json.loads((self.folder / ABOUT).read_text())
        except (FileNotFoundError, NotADirectoryError):
            raise BadInput(f"there is no run in {self.folder} to go on with; leave --resume out to start one") from None
        except ValueError as error:
            raise BadInput(f"{self.folder / ABOUT} is not JSON ({error}); start anew in another folder with --run") from None

    def start(self, about: Mapping[str, Any], anew: bool = False) -> None:
        """Begin; what has been answered already is thrown away only if that is asked for by `anew`, and never of another question.

        about["question"] is what decides the answers; the rest is kept beside it.
        """
        held = self._held()
        if (self.folder / ABOUT).exists():
            more = self._asks_more(about["question"])
            add = "add to it with --resume, " if more else ""
            self.refuse_other(about["question"], f"{add}name another folder with --run, or remove it")
            if (answers := len(list(self.folder.glob("answers/*/*/*.npz")))) and not anew:
                done = f"{answers} answer{'s' if answers > 1 else ''} to this question"
                raise BadInput(f"{self.folder} holds {done}; go on from there with --resume, or throw them away with --anew")
        self.refuse_what_is_no_run()
        for path in held:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.note(about)

    def note(self, about: Mapping[str, Any]) -> None:
        """Keep what the run is about."""
        write_atomically(self.folder / ABOUT, json.dumps(about, indent=1) + "\n")

    def take_up(self, question: Mapping[str, Any], command: str) -> bool:
        """Go on with this run; say whether the question asks for more methods or seeds than before, which keep what is answered.

        BadInput where anything else differs.
        """
        about, asked = self.about(), json.loads(json.dumps(question))
        old = about["question"]
        like_before = {**asked, "methods": old["methods"], "seeds": old["seeds"]} if self._asks_more(asked) else asked
        self.refuse_other(like_before, "mend the command, or leave --resume out and name another folder with --run")
        if old == asked:
            return False
        self.note({**about, "question": asked, "command": command})
        return True

    def refuse_what_is_no_run(self) -> None:
        """Raise BadInput where something else lies in the run's place."""
        if self.folder.exists() and not self.folder.is_dir():
            raise BadInput(f"--run wants a folder; {self.folder} is a file")
        if self._held() and not (self.folder / ABOUT).exists():
            raise BadInput(f"{self.folder} is not empty and holds no run; name another folder with --run")

    def _held(self) -> list[Path]:
        return [path for path in self.folder.iterdir() if path.name != LOCK] if self.folder.is_dir() else []

    def _asks_more(self, question: Mapping[str, Any]) -> bool:
        """Say whether it has the methods and seeds of this run and perhaps others."""
        old = self.about()["question"]
        return set(old["methods"]) <= set(question["methods"]) and old["seeds"] <= question["seeds"]

    def refuse_other(self, question: Mapping[str, Any], way_out: str) -> None:
        """Raise BadInput, with what differs, unless the run answers this question."""
        differing = differences(self.about()["question"], json.loads(json.dumps(question)))
        if differing:
            raise BadInput(f"{self.folder} holds the run of another question: {'; '.join(differing)}; {way_out}")

    def has(self, method: str, seed: int, window: int) -> bool:
        """Say whether the answers of a method to a window are there."""
        return self._answers(method, seed, window).exists()

    def write(self, answers: Answers) -> None:
        """Keep answers, all or nothing."""
        about = {"lists": answers.lists, "cost": asdict(answers.cost)}
        arrays = {name: array for name in ("ranks", "shown", "matrix") if (array := getattr(answers, name)) is not None}
        _write(self._answers(answers.method, answers.seed, answers.window), about, arrays)

    def read(self, method: str, seed: int, window: int) -> Answers:
        """Return the answers of a method to a window, without the lists that were shown."""
        about, arrays = _read(self._answers(method, seed, window), ("ranks", "matrix"))
        return Answers(method, seed, window, arrays["ranks"], about["lists"], Cost(**about["cost"]), matrix=arrays.get("matrix"))

    def write_asked(self, asked: Asked) -> None:
        """Keep what was asked in a window."""
        about = {"window": asked.window, "begin": asked.begin, "n_items": asked.n_items, "counts": asked.counts}
        masks = {f"{group}/{name}": mask for group, named in asked.slices.items() for name, mask in named.items()}
        _write(self._asked(asked.window), about, {"start": asked.start, "owner": asked.owner, **masks})

    def windows(self) -> list[Asked]:
        """Return what was asked in each window so far."""
        return [self._read_asked(path) for path in sorted((self.folder / "windows").glob("*.npz"))]

    def answered(self, methods: Sequence[str], seeds: int) -> list[Answers]:
        """Return all the answers of some methods, each under as many of the seeds as it was asked, window by window."""
        windows = [int(path.stem) for path in sorted((self.folder / "windows").glob("*.npz"))]
        every = [(name, seed, window) for name in methods for seed in range(seeds) for window in windows]
        return [self.read(*each) for each in every if self.has(*each)]

    def _read_asked(self, path: Path) -> Asked:
        about, arrays = _read(path)
        start, owner = arrays.pop("start"), arrays.pop("owner")
        slices: dict[str, dict[str, np.ndarray]] = {}
        for key, mask in arrays.items():
            group, name = key.split("/", 1)
            slices.setdefault(group, {})[name] = mask
        return Asked(start=start, owner=owner, slices=slices, **about)

    def _asked(self, window: int) -> Path:
        return self.folder / "windows" / f"{window:04d}.npz"

    def _answers(self, method: str, seed: int, window: int) -> Path:
        return self.folder / "answers" / folder_name(method) / f"seed{seed}" / f"{window:04d}.npz"


def folder_name(method: str) -> str:
    """Return a name that a folder can have, another for every method."""
    return f"{re.sub(r'[^A-Za-z0-9]+', '-', method).strip('-')}-{crc32(method.encode()):08x}"


def differences(old: Any, new: Any, name: str = "") -> list[str]:
    """Return how two questions differ, as lines like "settings.training.epochs was 10, is 5"."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = dict.fromkeys([*old, *new])
        return [line for key in keys for line in differences(old.get(key), new.get(key), f"{name}.{key}" if name else key)]
    return [] if old == new else [f"{name} was {_short(old)}, is {_short(new)}"]


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _write(path: Path, about: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> None:
    def fill(beside: Path) -> None:
        with beside.open("wb") as file:
            np.savez_compressed(file, **{"about": np.array(json.dumps(about)), **arrays})  # type: ignore[arg-type]

    write_beside(path, fill)


def _read(path: Path, names: tuple[str, ...] | None = None) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    try:
        with np.load(path, allow_pickle=False) as file:
            wanted = [name for name in file.files if name != "about" and (names is None or name in names)]
            return json.loads(str(file["about"])), {name: file[name] for name in wanted}
    except (BadZipFile, EOFError, ValueError, KeyError, AttributeError) as error:
        raise BadInput(f"{path} is damaged ({type(error).__name__}); remove it, and --resume answers that window again") from None
