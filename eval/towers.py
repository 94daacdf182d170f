"""The two towers as methods of a replay: fitted once, updated by a strategy, or fitted anew each time."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, cast
from zlib import crc32

import numpy as np
import pyarrow as pa

from eval.names import Part
from eval.timeline import Learned, Queries, Window
from recsys import again
from recsys.again import Returns
from recsys.errors import BadInput
from recsys.events import milliseconds
from recsys.index import ItemIndex
from recsys.log import Position
from recsys.registry import Registry, Release
from recsys.sessions import Histories, Pairs, of_the_same_people, sessionise
from recsys.settings import Settings
from recsys.towers import Towers
from training.candidate import Candidate
from training.fit import fit
from training.fusing import reweighed
from training.strategies import STRATEGIES
from training.strategies import parse as strategies_of
from training.update import update

Mode = Literal["update", "frozen", "recounted", "retrain", "window"]
MODES: dict[str, dict[str, Any]] = {"frozen": {}, "recounted": {}, "retrain": {"every": 1}, "window": {"n": 4}}
"""Methods that are no strategy, with their settings: learn once and never again; the same, but count popularity and people on and place
new items, without a step of training; learn everything anew each time, or in every n-th window and serve that until then; learn the
newest n time windows anew each time."""

MODIFIERS: dict[str, dict[str, Any]] = {"dropout": {"rate": 0.5}}
"""Words that follow a strategy, with their settings: raise the model's dropout in its updates (a baseline of ADER, RecSys 2020)."""


NEIGHBOURS = "neighbours"
"""The word that fuses the towers of any of these with the instance memory, as they are served."""


@dataclass(frozen=True)
class Recipe:
    """All that decides which towers there are after a lesson.

    first: the settings of a fit, updates: those of what follows; newest: how many time windows a fit sees, 0 for all; every: in every
    how many windows there is a fit.
    """

    mode: Mode
    first: Settings
    updates: Settings
    newest: int = 0
    every: int = 1

    @property
    def name(self) -> str:
        """Return a name for a folder: what it is, its seed and a checksum of everything."""
        what = self.mode if self.mode != "update" else re.sub(r"\W+", "-", self.first.update.strategy).strip("-")
        return f"{what}-seed{self.first.training.seed}-{crc32(repr(self).encode()):08x}"


class Shared:
    """What the methods of one command have in common, trained once: lines of releases and, where lines start alike, their fit."""

    def __init__(self) -> None:
        self.lines: dict[Recipe, Line] = {}
        self.fits: dict[tuple[str, int, int], tuple[Towers, float]] = {}

    def line(self, recipe: Recipe) -> "Line":
        """Return the one line of a recipe."""
        return self.lines.setdefault(recipe, Line(recipe, self))

    def fit(self, recipe: Recipe, window: Window) -> tuple[Candidate, float]:
        """Return the candidate of a fit, and the seconds of it that another line has spent: a strategy only measures in a fit."""
        events = pa.concat_tables([window.past, window.events])
        if recipe.newest:
            events = events.slice(int(np.searchsorted(milliseconds(events), window.begins[-recipe.newest :][0])))
        end = len(window.past) + len(window.events)
        key = (recipe.first.model_dump_json(exclude={"update"}), end - len(events), end)
        self.fits = {old: done for old, done in self.fits.items() if old[2] == end}
        if key in self.fits:
            towers, seconds = self.fits[key]
            return fit(events, recipe.first, window.catalogue, trained=towers), seconds
        started = perf_counter()
        candidate = fit(events, recipe.first, window.catalogue)
        self.fits[key] = candidate.towers, perf_counter() - started
        return candidate, 0.0


class Line:
    """Releases that follow from one another by one recipe, the newest in memory; methods that need the same share it."""

    def __init__(self, recipe: Recipe, shared: Shared):
        self.recipe, self.shared = recipe, shared
        self.candidate: Candidate | None = None
        self.before: Candidate | None = None
        self.release: Release | None = None
        self.upto = 0
        self.last = Learned()

    def learn(self, window: Window) -> Learned:
        """Go on to the end of a window, unless another method has done so already."""
        upto = len(window.past) + len(window.events)
        if upto == self.upto:
            return self.last
        if upto < self.upto:
            return Learned()
        if not self._due(window):
            self.before = None  # nothing was learned in between
            return Learned()
        if self.candidate is not None and self.recipe.every == 1 and len(window.past) != self.upto:
            raise AssertionError(f"the towers have learned {self.upto} events, the lesson begins behind {len(window.past)}")
        started = perf_counter()
        candidate, borrowed, epochs = self._next(window)
        self.before, self.candidate, self.upto = self.candidate, candidate, upto
        examples = round(candidate.notes.get("trained") or epochs * candidate.notes["examples"])
        self.last = Learned(perf_counter() - started + borrowed, examples)
        return Learned(borrowed, examples)

    def _due(self, window: Window) -> bool:
        if self.candidate is None:
            return True
        return self.recipe.mode != "frozen" and int(np.count_nonzero(window.begins > self.candidate.counts.now)) >= self.recipe.every

    def _next(self, window: Window) -> tuple[Candidate, float, int]:
        first, updates = self.recipe.first, self.recipe.updates
        past = of_the_same_people(window.past, window.events)
        if self.candidate is None or self.recipe.mode in ("retrain", "window"):
            candidate, borrowed = self.shared.fit(self.recipe, window)
            if self.candidate is not None:  # the weights of its parts are measured as those of an update are
                sessions = sessionise(pa.concat_tables([past, window.events]), self.candidate.vocab, first.data.session_gap)
                seed = [first.training.seed, self.upto]
                candidate = reweighed(candidate, self.candidate, sessions, sessions.place >= len(past), seed)
            return candidate, borrowed, first.training.epochs
        candidate = update(self.candidate, window.events, past, updates, window.catalogue)
        return replace(candidate, settings=first), 0.0, updates.update.epochs  # a release is written with settings that can be read again

    def save(self, folder: Path) -> int:
        """Publish the newest candidate in the line's own registry unless it stands there; keep the newest two; return its bytes."""
        assert self.candidate is not None, "learn comes before save"
        registry = Registry(folder / self.recipe.name)
        live = registry.open() if registry.current() else None
        if live is None or live.position.offset != self.upto:
            parent = live.id if live else None
            candidate = self.candidate.at(Position(self.upto), self.release)
            with registry.draft() as draft:
                about = candidate.write(draft) | {"why": "replay", "seconds": {"train": round(self.last.seconds_borrowed, 3)}}
                live = registry.publish(draft, registry.next_id(), parent, about)
            for id in registry.ids()[:-2]:
                shutil.rmtree(registry.folder / id)
        self.release = live
        return sum(path.stat().st_size for path in live.folder.rglob("*") if path.is_file())

    def load(self, folder: Path, learned: int) -> bool:
        """Take up the release that had learned so many events, of lines that rest the newest up to there; say whether there is one."""
        rests = self.recipe.mode == "frozen" or self.recipe.every > 1
        registry = Registry(folder / self.recipe.name)
        for release in map(registry.open, reversed(registry.ids())):
            if release.position.offset == learned or (rests and release.position.offset <= learned):
                self.candidate, self.release, self.upto = Candidate.load(release), release, release.position.offset
                return True
        return False


class _OfLine:
    """A method that answers with the newest release of a line."""

    random = True

    def __init__(self, name: str, line: Line):
        self.name, self.line = name, line
        self.shown: Candidate | None = None

    @property
    def candidate(self) -> Candidate:
        """The recommender of now."""
        assert self.line.candidate is not None, "learn comes first"
        return self.line.candidate

    def learn(self, window: Window) -> Learned:
        learned = self.line.learn(window)
        if self.shown is not self.candidate:
            self._lay_out(window)
            self.shown = self.candidate
        return learned

    def size(self) -> int:
        """Return the bytes of towers, item vectors, memory and what the strategy carries; a saved release has a few files more."""
        candidate = self.candidate
        tensors = [*candidate.towers.state_dict().values(), *candidate.strategy_state.values()]
        arrays = [candidate.memory.keys, *vars(candidate.memory.examples).values()]
        vectors = 3 * 4 * len(candidate.vocab) * candidate.settings.model.dim  # the items' own, their people, where they are found
        return vectors + sum(tensor.nbytes for tensor in tensors) + sum(array.nbytes for array in arrays)

    def save(self, folder: Path) -> int:
        return self.line.save(folder)

    def load(self, folder: Path, learned: int) -> bool:
        return self.line.load(folder, learned)

    def _lay_out(self, window: Window) -> None:
        """Get ready to answer in the evaluator's rows."""
        raise NotImplementedError


class TowersMethod(_OfLine):
    """Towers that learn window by window; a person without a history is shown what is popular.

    Its rows are the evaluator's: vectors, prototypes and bias are laid out by its vocabulary, -inf where the towers do not know an item.
    """

    def scores(self, queries: Queries) -> np.ndarray:
        return self._scores(queries, self.vectors, self.found_at, self.bias)

    def stale_scores(self, queries: Queries) -> np.ndarray | None:
        """Return what the user tower of now makes of the item vectors before it; popularity is that of now."""
        if self.stale is None or self.line.before is None:
            return None
        return self._scores(queries, self.stale[0], self.stale[1], self.bias[: len(self.stale[0])])

    def found(self, queries: Queries, seen: Pairs | None, k: int) -> np.ndarray | None:
        """Search the saved release's index for more than `k`, drop what was seen, keep `k`."""
        release = self.line.release
        if release is None:
            return None
        index = ItemIndex.read(release.folder, release.manifest["towers"])
        people = self._people(queries.histories, self.vectors, self.bias)
        longest = int(np.diff(queries.histories.start).max(initial=0))
        scores, rows = index.search(people, k + longest)
        rows = np.append(self.rows, 0)[rows]  # -1, for nothing, is the 0 at the end
        had = again.returns(self._known(queries.histories, self.bias))
        query, item = seen or (had.query, had.item)
        scores[(rows == 0) | np.isin(np.arange(len(rows))[:, None] * queries.n_items + rows, query * queries.n_items + item)] = -np.inf
        if not seen:  # what somebody had already is scored beside the index
            own, mine = np.full((len(rows), longest), -np.inf, np.float32), np.zeros((len(rows), longest), rows.dtype)
            place = had.query, np.arange(len(query)) - np.searchsorted(query, query)
            own[place] = (people[query] * self.found_at[item]).sum(axis=1) + self.bias[item] + self._pull(had)
            mine[place] = item
            scores, rows = np.hstack([scores, own]), np.hstack([rows, mine])
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.where(np.isneginf(np.take_along_axis(scores, best, axis=1)), 0, np.take_along_axis(rows, best, axis=1))

    def _lay_out(self, window: Window) -> None:
        """Lay vectors and bias out by the evaluator's rows."""
        candidate, before = self.candidate, self.line.before
        self.rows = window.vocab.rows(candidate.vocab.ids)
        follows = self.line.recipe.mode in ("update", "recounted", "retrain") and self.line.recipe.every == 1
        if follows and candidate.vocab.ids != window.vocab.ids:
            raise AssertionError("the towers number the items otherwise than the evaluator")
        self.vectors = np.zeros((len(window.vocab), candidate.settings.model.dim), np.float32)
        self.found_at = np.zeros_like(self.vectors)
        self.vectors[self.rows], self.found_at[self.rows] = candidate.vectors()
        self.bias = np.full(len(window.vocab), -np.inf, np.float32)
        self.bias[self.rows] = candidate.bias()
        self.stale = None
        if before is not None:
            known = window.vocab.rows(before.vocab.ids)
            self.stale = np.zeros((2, int(known.max()) + 1, self.vectors.shape[1]), np.float32)
            self.stale[:, known] = before.vectors()

    def _scores(self, queries: Queries, vectors: np.ndarray, found_at: np.ndarray, bias: np.ndarray) -> np.ndarray:
        rows = min(len(vectors), queries.n_items)
        scores = np.full((len(queries), queries.n_items), -np.inf, np.float32)
        np.matmul(self._people(queries.histories, vectors, bias), found_at[:rows].T, out=scores[:, :rows])
        scores[:, :rows] += bias[:rows]
        had = again.returns(self._known(queries.histories, bias))
        scores[had.query, had.item] += self._pull(had)
        return scores

    def _pull(self, had: Returns) -> np.ndarray:
        """Return what is added to the score of what somebody had already, (R,)."""
        return np.float32(1 / self.candidate.towers.scale().item()) * self.candidate.again.towers[had.place].astype(np.float32)

    def _people(self, histories: Histories, vectors: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """Return the unit vector of each history, (B, d), read from item vectors; items without one are passed over."""
        return self.candidate.towers.user_vectors(self.candidate.readable(self._known(histories, bias)), vectors)

    def _known(self, histories: Histories, bias: np.ndarray) -> Histories:
        return histories.where(np.append(np.isfinite(bias), False)[np.minimum(histories.item, len(bias))])


class FusedMethod(_OfLine):
    """What is served: the same towers and, mixed with them, the neighbours' votes.

    Not Released: the memory of a later release knows the answers of an earlier window by heart.
    """

    def scores(self, queries: Queries) -> np.ndarray:
        histories = queries.histories
        own = self.own[np.minimum(histories.item, len(self.own) - 1)]
        past = replace(histories, item=own).where(own > 0)
        fused = self.candidate.fused(past, queries.now, self.vectors, past.pairs() if queries.exclude_seen else None)
        if np.array_equal(self.rows, np.arange(queries.n_items)):
            return fused
        scores = np.full((len(queries), queries.n_items), -np.inf, np.float32)
        scores[:, self.rows] = fused
        return scores

    def size(self) -> int:
        """Return the bytes of the towers and of the instance memory."""
        return super().size() + self.candidate.neighbours.bytes

    def _lay_out(self, window: Window) -> None:
        self.vectors, self.rows = self.candidate.vectors(), window.vocab.rows(self.candidate.vocab.ids)
        self.own = np.zeros(len(window.vocab) + 1, np.int64)  # evaluator's row -> the towers'; the last stands for all later ones
        self.own[self.rows] = np.arange(len(self.rows))


def towers_method(name: str, parts: Sequence[Part], settings: Settings, shared: Shared) -> TowersMethod | FusedMethod:
    """Make a method of towers from the parts of its name; the word "neighbours" among them asks for the fused answer."""
    towers = [part for part in parts if part.name != NEIGHBOURS]
    for part in parts:
        if part.name == NEIGHBOURS:
            part.settings({})
    if not towers:
        raise BadInput(f"{name!r} alone has no towers to be fused with; write it like replay+ewc+neighbours, or ask knn")
    line = shared.line(recipe(name, towers, settings))
    return TowersMethod(name, line) if len(towers) == len(parts) else FusedMethod(name, line)


def recipe(name: str, parts: Sequence[Part], settings: Settings) -> Recipe:
    """Return what the parts of a name say about the towers: a mode, or strategies and perhaps what modifies their updates."""
    modes = [part for part in parts if part.name in MODES]
    if modes and len(parts) > 1:
        known = ", ".join(sorted(STRATEGIES))
        raise BadInput(
            f"{modes[0].name!r} in {name!r} is no strategy; strategies join by +: {known}; +dropout may follow one, +neighbours any towers"
        )
    if modes:
        return _mode_recipe(modes[0], settings)
    modifiers = {part.name: part.settings(MODIFIERS[part.name]) for part in parts if part.name in MODIFIERS}
    strategy = "+".join(part.text for part in parts if part.name not in MODIFIERS)
    if not strategy:
        raise BadInput(f"{name!r} says how to update, but not by what strategy; write it like naive+dropout")
    strategies_of(strategy)
    first = _changed(settings, "update", strategy=strategy)
    updates = _changed(first, "model", dropout=_dropout(modifiers["dropout"]["rate"])) if "dropout" in modifiers else first
    return Recipe("update", first, updates)


def _mode_recipe(part: Part, settings: Settings) -> Recipe:
    own = part.settings(MODES[part.name])
    newest = own.get("n", 0)
    if "n" in own and (type(newest) is not int or newest < 1):
        raise BadInput(f"window.n is how many of the newest time windows are learned, a whole number from 1 on; got {newest!r}")
    every = own.get("every", 1)
    if type(every) is not int or every < 1:
        raise BadInput(f"retrain.every is in every how many windows everything is learned anew, a whole number from 1 on; got {every!r}")
    first = _changed(settings, "update", strategy="naive")
    updates = _changed(first, "update", epochs=0) if part.name == "recounted" else first
    return Recipe(cast(Mode, part.name), first, updates, newest, every)


def _dropout(rate: float) -> float:
    if type(rate) not in (int, float) or not 0 <= rate < 1:
        raise BadInput(f"dropout.rate is the dropout of updates, from 0 to below 1; got {rate!r}")
    return float(rate)


def _changed(settings: Settings, section: str, **values: Any) -> Settings:
    return settings.model_copy(update={section: getattr(settings, section).model_copy(update=values)})
