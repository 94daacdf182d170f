"""What a release would have earned on the lists that were explored: the log's samples, the releases' chances, the estimates."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow as pa
from rich import box
from rich.table import Table

from eval import off_policy
from eval.explored import Shown, explored
from eval.off_policy import Estimate
from recsys.catalogue import Catalogue
from recsys.errors import BadInput
from recsys.home import Home
from recsys.log import Log
from recsys.progress import Step, silent
from recsys.registry import Registry
from recsys.settings import Settings
from serving.arrange import POOL
from serving.messages import MAX_K
from serving.snapshot import Ask, Snapshot

BLOCK = 64
"""Lists that a release is asked for at once."""

PRIOR = 20.0
"""An item's own earnings count from about so many expected ones on: before that it earns what its place does."""

CLOSE = 1e-4
"""A chance that is worked out again may differ from the logged one by this share: towers asked for several people add up otherwise."""

GONE = "made by a release that is gone"
UNLIKE = "not made again from the log: the profile or the items were others then"

Chances = tuple[list[str], np.ndarray]
"""The C items that a release draws from, and how likely each is to come to each of the L places of a list, (L, C)."""


@dataclass(frozen=True)
class Samples:
    """Every place of some lists: whose (N,), its place in its list (N,), reward (N,), and the logged chance of its item (N,)."""

    owner: np.ndarray
    place: np.ndarray
    reward: np.ndarray
    logged: np.ndarray

    @classmethod
    def of(cls, lists: Sequence[Shown]) -> "Samples":
        return cls(
            np.concatenate([[one.owner] * len(one.items) for one in lists]),
            np.concatenate([np.arange(len(one.items)) for one in lists]),
            np.concatenate([one.reward for one in lists]),
            np.concatenate([one.logged for one in lists]),
        )


@dataclass(frozen=True)
class Told:
    """What a release says of each sample: how likely it makes what was shown, target (N,), what it would earn by the model, expected (N,),
    and which share of what it would do is out of reach, lost (N,).
    """

    target: np.ndarray
    expected: np.ndarray
    lost: np.ndarray

    @classmethod
    def joined(cls, parts: Sequence["Told"]) -> "Told":
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in ("target", "expected", "lost")))


class Earning:
    """A model of rewards: what a place earns in the mean, times how much more an item earns than its places do.

    Learned by two halves of the people, each of which is foretold by the other: a sample has no say in what is foretold of it (Chernozhukov
    et al., Econometrics J. 2018). The lift of an item, (PRIOR + earned) / (PRIOR + expected by its places), is 1 where nothing is known.
    """

    def __init__(self, lists: Sequence[Shown]):
        samples, items = Samples.of(lists), [id for one in lists for id in one.items]
        half = np.array([_half(owner) for owner in samples.owner])
        self.places, self.lifts = list[np.ndarray](), list[dict[str, float]]()
        for own in (0, 1):
            others = half != own
            count = np.bincount(samples.place[others], minlength=MAX_K)
            mean = samples.reward[others].sum() / max(others.sum(), 1)
            place = (np.bincount(samples.place[others], samples.reward[others], MAX_K) + PRIOR * mean) / (count + PRIOR)
            earned, usual = Counter[str](), Counter[str]()
            for at in np.flatnonzero(others).tolist():
                earned[items[at]] += samples.reward[at]
                usual[items[at]] += place[samples.place[at]]
            self.places.append(place)
            self.lifts.append({id: (PRIOR + earned[id]) / (PRIOR + usual[id]) for id in usual})

    def of(self, owner: str, items: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return what each place earns in the mean, (MAX_K,), and how much more each of some items does, (C,), in somebody's list."""
        lift = self.lifts[_half(owner)]
        return self.places[_half(owner)], np.array([lift.get(id, 1.0) for id in items])


def estimate(
    home: Home,
    settings: Settings,
    id: str,
    window: float = 3600.0,
    clip: float | None = None,
    most: int = 10_000,
    step: Step = silent,
) -> dict[str, Any]:
    """Return what a release, and the live one beside it, would have earned on the lists that were explored, as JSON would say it.

    A sample is one place of one list; what stands above it is as it was shown. So an estimate is the reward of a place that the release
    fills below what another showed, its own share explored as much, and not that of a whole list of its own, whose upper places would be
    others. Only lists that neither release has learned are taken, and of these only such as the release that made them makes again, to the
    logged chance of every item: then profile, items and wishes are known as they were. clip: the largest weight; the root of the number of
    samples where left out.
    """
    registry = Registry(home.releases)
    live, chosen = registry.open(), registry.open(id)
    log = Log(home.log)
    lists, left_out = explored(log.read(), settings, [live.position, chosen.position], window, most, log.offsets())
    if lists:
        limit = float(np.sqrt(sum(len(one.items) for one in lists))) if clip is None else clip
        model = Earning(lists)
        lists, told = _asked(home, lists, [chosen.id, live.id], model, limit, left_out, step)
    if not lists:
        why = "; ".join(f"{count:,} {reason}" for reason, count in (+left_out).items())
        raise BadInput(f"none of the lists that were explored can be judged: {why}; explore on beside a release that has not learned them")
    samples = Samples.of(lists)
    foretold = np.concatenate([_foretold(model, one) for one in lists])
    found = {name: _estimates(samples, one, foretold, limit) for name, one in told.items()}
    first, last = found[chosen.id], found[live.id]
    return {
        "release": chosen.id,
        "live": live.id,
        "lists": len(lists),
        "places": len(samples.reward),
        "people": len(np.unique(samples.owner)),
        "clip": limit,
        "as shown": off_policy.as_shown(samples.reward, samples.owner).as_dict(),
        "releases": {name: _said(found[name], one, samples, limit) for name, one in told.items()},
        "ahead": {} if chosen.id == live.id else {how: off_policy.ahead(first[how], last[how], samples.owner).as_dict() for how in first},
        "left out": dict(+left_out),
    }


def table(found: dict[str, Any]) -> Table:
    """Return the estimates as a table for the terminal, in rewards per hundred places."""
    shown = found["as shown"]
    made = Table(
        "release", "ips", "snips", "doubly robust", "counts like",
        title=f"earned by 100 places, of {found['lists']:,} lists for {found['people']:,} people; as shown: {_interval(shown)}",
        caption="95% intervals by a bootstrap over people; counts like: so many places of its own",
        box=box.SIMPLE_HEAD,
    )  # fmt: skip
    for name, one in found["releases"].items():
        mark = " *" if name == found["live"] else ""
        made.add_row(f"{name}{mark}", *(_interval(one[how]) for how in ("ips", "snips", "doubly robust")), f"{one['effective']:,.0f}")
    if ahead := found["ahead"]:
        made.add_row("ahead of *", *(_interval(ahead[how], "+") for how in ("ips", "snips", "doubly robust")), "")
    return made


def remarks(found: dict[str, Any]) -> list[str]:
    """Return what must be said beside the table: doubts, and what was left out."""
    doubts = [f"{name}: {doubt}" for name, one in found["releases"].items() for doubt in one["doubts"]]
    return doubts + [f"left out: {count:,} lists {reason}" for reason, count in found["left out"].items()]


def _estimates(samples: Samples, told: Told, foretold: np.ndarray, clip: float) -> dict[str, Estimate]:
    weight = off_policy.weights(told.target, samples.logged, clip)
    return {
        "ips": off_policy.ips(samples.reward, weight, samples.owner),
        "snips": off_policy.snips(samples.reward, weight, samples.owner),
        "doubly robust": off_policy.doubly_robust(samples.reward, weight, told.expected, foretold, samples.owner),
    }


def _said(found: dict[str, Estimate], told: Told, samples: Samples, clip: float) -> dict[str, Any]:
    weight = off_policy.weights(told.target, samples.logged, clip)
    return {
        **{how: one.as_dict() for how, one in found.items()},
        "effective": off_policy.effective(weight),
        "mean weight": float(weight.mean()),
        "largest weight": float(weight.max()),
        "lost": float(told.lost.mean()),
        "doubts": off_policy.doubts(weight, told.lost),
    }


def _asked(
    home: Home, lists: Sequence[Shown], ids: Sequence[str], model: Earning, clip: float, left_out: Counter[str], step: Step
) -> tuple[list[Shown], dict[str, Told]]:
    """Return the lists that their own releases make again, and what each of `ids` says of them; the others are counted in `left_out`."""
    registry, catalogue = Registry(home.releases), Catalogue(home.items).read()
    there, kept, done = set(registry.ids()), list[Shown](), 0
    asked = {id: _snapshot(registry, id, catalogue) for id in ids}
    told: dict[str, list[Told]] = {id: [] for id in asked}
    by_release = sorted(lists, key=lambda one: one.made.release)
    for name, group in groupby(by_release, key=lambda one: one.made.release):
        theirs = list(group)
        if name not in there:
            left_out[GONE] += len(theirs)
            continue
        own = asked.get(name) or _snapshot(registry, name, catalogue)
        for first in range(0, len(theirs), BLOCK):
            some = theirs[first : first + BLOCK]
            again = [(one, drawn) for one, drawn in zip(some, _chances(own, some), strict=True) if _as_logged(drawn, one)]
            left_out[UNLIKE] += len(some) - len(again)
            kept += [one for one, _ in again]
            for id, snapshot in asked.items():
                answers = _chances(snapshot, [one for one, _ in again])
                told[id] += [_told(one, answer, drawn, model, clip) for (one, drawn), answer in zip(again, answers, strict=True)]
            done += len(some)
            step("making the lists again", done, len(lists))
    return kept, {id: Told.joined(parts) for id, parts in told.items()} if kept else {}


def _told(one: Shown, answer: Chances, drawn: Chances, model: Earning, clip: float) -> Told:
    """Return what a release says of the places of one list; drawn: how the list came about."""
    items, chances = answer
    place, lift = model.of(one.owner, items)
    return Told(
        _of_items(answer, one.items), place[: len(chances)] * (chances @ lift), off_policy.lost(chances, _among(drawn, items), clip)
    )


def _chances(snapshot: Snapshot, lists: Sequence[Shown]) -> list[Chances]:
    """Return what a release would draw each list from, and how likely, where the same profile asks with the same wishes."""
    asks = [Ask(one.past, min(MAX_K, POOL * one.made.k), one.made.exclude_seen) for one in lists]
    return [
        snapshot.chances(ranked, one.made.k, one.made.diversity, one.made.explore, one.items)
        for one, ranked in zip(lists, snapshot.recommend_many(asks), strict=True)
    ]


def _as_logged(drawn: Chances, one: Shown) -> bool:
    """Say whether every item of a list has the chance that was logged."""
    return bool(np.allclose(_of_items(drawn, one.items), one.logged, rtol=CLOSE, atol=0))


def _of_items(chances: Chances, items: Sequence[str]) -> np.ndarray:
    """Return how likely each of L items was to come to its own place, (L,)."""
    return _among(chances, items).diagonal()


def _among(chances: Chances, items: Sequence[str]) -> np.ndarray:
    """Return how likely each of some items was to come to each place, (L, items); 0 for what is not drawn."""
    ids, found = chances
    column = {id: number for number, id in enumerate(ids)}
    at = np.array([column.get(id, -1) for id in items], np.int64)
    return np.where(at >= 0, found[:, at], 0.0)


def _foretold(model: Earning, one: Shown) -> np.ndarray:
    place, lift = model.of(one.owner, one.items)
    return place[: len(one.items)] * lift


def _snapshot(registry: Registry, id: str, catalogue: pa.Table) -> Snapshot:
    """Return a release as it would answer now, with what the catalogue says."""
    plain = Snapshot.load(registry.open(id))
    return plain.stocked(catalogue) if len(catalogue) else plain


def _half(owner: str) -> int:
    return crc32(owner.encode("utf-8", "surrogatepass")) % 2


def _interval(about: dict[str, float], sign: str = "") -> str:
    return f"{100 * about['value']:{sign}.2f} [{100 * about['low']:{sign}.2f}, {100 * about['high']:{sign}.2f}]"
