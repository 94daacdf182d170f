"""From histories to lists of items: one release in memory."""

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from safetensors import safe_open

from recsys import again, events, fusion, refused
from recsys.again import Again, Returns
from recsys.catalogue import SCHEMA as CATALOGUE
from recsys.catalogue import WITHDRAWN
from recsys.content import features, placed
from recsys.errors import RecsysError, ReleaseDamaged
from recsys.fusion import Fusion
from recsys.index import ItemIndex
from recsys.neighbours import Neighbours
from recsys.registry import FORMAT, Release
from recsys.sessions import NOWHERE, Histories, ranges
from recsys.vocab import Vocabulary
from recsys.voting import seal
from serving.arrange import POOL, diversified, explored, propensities
from serving.cursor import fingerprints
from serving.feed import feed
from serving.history import Event, History
from serving.opinions import best, first, opinions
from serving.rules import Rules
from serving.shelf import Filters, Shelf
from serving.stock import Names, Rows

SOURCES = ("tower", "neighbours", "popular")
"""Who may say most for an item."""

NO_ROWS = np.zeros(0, np.int64)
NO_ROW = np.zeros(1, np.int64)
NOBODY = seal(np.zeros(0, bool))
NO_FACTOR = np.zeros(0)
NOTHING = Returns(NO_ROWS, NO_ROWS, NO_ROWS)
DISLIKE = events.CODE["dislike"]
NEGATIVE = frozenset(events.CODE[name] for name in events.NEGATIVE)
FEED = "items", "kinds", "gaps", "lengths", "surface"
"""What the user tower is asked; the last only where it has heads."""

READ = frozenset(events.CODE[name] for name in events.HISTORY)

NO_RULES = Rules()

SHORT = 40
"""Of neighbours and popularity at least so many are looked at; of the towers as many as their probabilities are taken among."""

PRIOR = 100.0
"""Likes that the popularity of a release counts for beside those of the last hours."""

UNLIKE = 0.7
"""How much it counts in onboarding that items are unlike each other (serving.arrange.diversified)."""

Found = tuple[int, float, str]
"""Row, score and source."""


class ItemNotFound(RecsysError):
    """The live release does not know that item."""


@dataclass(frozen=True)
class Ask:
    """What one list is asked for: see `Snapshot.recommend`."""

    history: History
    k: int
    exclude_seen: bool = True
    exclude_items: Iterable[str] = ()
    include_items: Iterable[str] | None = None
    filters: Filters | None = None
    shown: np.ndarray | None = None


@dataclass
class Asked:
    """One person's question: their past, what of it may come again, the rows that they dislike, and what is said of it.

    What may not be recommended to them (see serving.opinions): own rows, ascending, that are their own doing, and lie near what they like;
    out (n + 1,) bool, shared with others; selected: whether filters or a selection left only a part of the catalogue. Once they were asked:
    user (d,), the person's vector; nearest rows, the best of the towers; voted rows, ascending, and their vote, of the neighbours.
    """

    past: Histories
    had: Returns
    disliked: np.ndarray
    own: np.ndarray
    out: np.ndarray
    selected: bool = False
    user: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))
    nearest: np.ndarray = field(default_factory=lambda: NO_ROWS)
    voted: np.ndarray = field(default_factory=lambda: NO_ROWS)
    vote: np.ndarray = field(default_factory=lambda: np.zeros(0, np.float32))

    def without(self, rows: Iterable[int]) -> "Asked":
        """Return the same question where some more rows may not be recommended."""
        return replace(self, own=np.sort(np.concatenate([self.own, np.fromiter(rows, np.int64)])))


@dataclass(frozen=True)
class Snapshot:
    """One release, ready to answer; nothing in it changes.

    By vocabulary row: vectors (n + 1, d) that histories are read from, prototypes (n + 1, d) that items are found at and bias (n + 1,),
    mapped from files; popularity (n + 1,) as a share of the most popular item's, share (n + 1,) of all that is watched. popular (n,) rows,
    most popular first; lift (n + 1,): what the fused score of whoever has a history is multiplied by; kinds: how many events of each type
    the towers have learned from; surfaces: those that the user tower has heads for; scale: what turns the index's scores into logits; now:
    the newest event that the release has learned, ms.
    withdrawn (n + 1,) bool: what nobody is recommended any more, (0,) where that is nothing; fingerprints: what cursors know items by,
    sorted, and whose row each is; cold: rows and scores for whom nothing is known, None where those are the popular ones; gone: items that
    were withdrawn before the release knew them. Behind the n items of the release, and not in its index, stand those that came since
    (`stocked`).
    """

    id: str
    history: int
    vocab: Names
    titles: list[str | None]
    vectors: Rows
    prototypes: Rows
    bias: np.ndarray
    popular: np.ndarray
    popularity: np.ndarray
    share: np.ndarray
    lift: np.ndarray
    index: ItemIndex
    neighbours: Neighbours
    fusion: Fusion | None
    again: Again
    kinds: np.ndarray
    surfaces: tuple[str, ...]
    scale: float
    now: int
    shelf: Shelf
    withdrawn: np.ndarray
    fingerprints: tuple[np.ndarray, np.ndarray]
    fresh: float
    buckets: int
    folder: Path
    user_tower: onnxruntime.InferenceSession
    cold: tuple[np.ndarray, np.ndarray] | None = None
    gone: frozenset[str] = frozenset()

    @cached_property
    def most_lift(self) -> float:
        """What an item's score is multiplied by at most."""
        return float(self.lift.max())

    @cached_property
    def lifts(self) -> bool:
        """Whether any item's score is multiplied at all."""
        return bool((self.lift != 1).any())

    @classmethod
    def load(cls, release: Release) -> "Snapshot":
        """Verify a release, read it and answer once; raise ReleaseDamaged where its parts do not fit together."""
        faiss.omp_set_num_threads(1)  # holds for this thread
        try:
            release.verify()
            snapshot = cls._read(release)
            snapshot._warm()
        except RecsysError:
            raise
        except Exception as error:  # whatever a library makes of a file that cannot be used
            raise ReleaseDamaged(f"release {release.id} cannot be served: {error}; roll back with: recsys rollback") from error
        return snapshot

    @classmethod
    def _read(cls, release: Release) -> "Snapshot":
        if release.manifest.get("format") != FORMAT:
            raise ReleaseDamaged(f"release {release.id} was made by another version of recsys; train anew with: recsys fit")
        items = pq.read_table(release.file("items.parquet"), columns=["item_id", "row", "first_seen", "count", "title"])
        if not np.array_equal(items["row"].to_numpy(), np.arange(1, len(items) + 1)):
            raise ReleaseDamaged(
                f"release {release.id}: the rows of items.parquet are not 1 to {len(items)}; roll back with: recsys rollback"
            )
        config = tomllib.loads(release.file("config.toml").read_text())  # not as Settings: theirs may have changed since
        count = np.concatenate([[0.0], np.nan_to_num(items["count"].to_numpy())])
        first, now = np.concatenate([[0], items["first_seen"].cast("int64").to_numpy()]), release.manifest["now"]
        vocab, none = Vocabulary(_listed(items["item_id"])), np.zeros((0, 0), np.float32)
        return cls(
            id=release.id,
            history=config["data"]["history"],
            vocab=Names(vocab, []),
            titles=[None, *_listed(items["title"])],
            vectors=Rows(_mapped(release.file("vectors.npy")), none),
            prototypes=Rows(_mapped(release.file("prototypes.npy")), none),
            bias=seal(_mapped(release.file("bias.npy"))),
            popular=1 + np.argsort(-count[1:], kind="stable"),
            popularity=count / max(count.max(), 1e-9),
            share=seal(count / max(count.sum(), 1e-12)),
            lift=fusion.lifts(first, now, config["neighbours"]["fresh"]),
            index=ItemIndex.read(release.folder, towers=release.manifest["towers"], mapped=True),
            neighbours=Neighbours.read(release.folder),
            fusion=Fusion.read(release.folder) if config["neighbours"]["fuse"] else None,
            again=Again.read(release.folder),
            kinds=np.array(release.manifest["kinds"], np.int64),
            surfaces=tuple(release.manifest["surfaces"]),
            scale=release.manifest["scale"],
            now=now,
            shelf=Shelf(CATALOGUE.empty_table(), vocab),
            withdrawn=NOBODY,
            fingerprints=_by_fingerprint(vocab.ids),
            fresh=config["neighbours"]["fresh"],
            buckets=config["model"]["features"],
            folder=release.folder,
            user_tower=_session(release.file("user_tower.onnx")),
        )

    def stocked(self, catalogue: pa.Table) -> "Snapshot":
        """Return the same release with what the catalogue says now: what is withdrawn, and items that have come since.

        A new item stands where content alone puts it, with the popularity of what nobody has watched yet, until an update knows more. Only
        what was put on the shelf comes (its `withdrawn` says 0): a catalogue that was imported may describe many films that nobody watched.
        Nothing is copied but a few numbers per item. Call it on the snapshot of a release, not on one that is stocked.
        """
        ids, said = catalogue["item_id"].to_pylist(), np.full(len(catalogue), -1)
        if WITHDRAWN in catalogue.column_names:
            said = pc.fill_null(catalogue[WITHDRAWN].cast(pa.int64()), -1).to_numpy()
        come = [place for place in np.flatnonzero(said == 0).tolist() if not self.vocab.row(ids[place])]
        vocab = self.vocab.and_more([ids[place] for place in come])
        told = catalogue.take(pa.array(come, pa.int64())).to_pylist()
        vectors = np.zeros((len(come), self.vectors.width), np.float32)
        if told:
            with safe_open(self.folder / "towers.safetensors", framework="numpy") as file:
                table = file.get_tensor("items.content.weight")
            vectors = np.stack([placed(table, features(item, self.buckets)) for item in told])
        withdrawn = np.zeros(len(vocab), bool)
        withdrawn[vocab.rows(ids[place] for place in np.flatnonzero(said > 0).tolist())] = True
        withdrawn[0] = False
        values, rows = _by_fingerprint(vocab.more)
        place = np.searchsorted(self.fingerprints[0], values)

        def behind(numbers: np.ndarray, value: float) -> np.ndarray:
            return seal(np.concatenate([numbers, np.full(len(come), value, numbers.dtype)])) if come else numbers

        late = np.arange(len(self.vectors.base), len(vocab))
        return replace(
            self,
            vocab=vocab,
            titles=[*self.titles, *(item.get("title") for item in told)],
            vectors=Rows(self.vectors.base, vectors),
            prototypes=Rows(self.prototypes.base, vectors),
            bias=behind(self.bias, self.bias[0]),
            popular=np.concatenate([self.popular, late]),
            popularity=behind(self.popularity, 0.0),
            share=behind(self.share, 0.0),
            lift=behind(self.lift, self.fresh),
            shelf=Shelf(catalogue, vocab),
            withdrawn=seal(withdrawn) if withdrawn.any() else NOBODY,
            gone=frozenset(ids[place] for place in np.flatnonzero(said > 0).tolist() if not vocab.row(ids[place])),
            fingerprints=(np.insert(self.fingerprints[0], place, values), np.insert(self.fingerprints[1], place, rows + late[:1].sum())),
        )

    def heated(self, liked: Mapping[str, float]) -> "Snapshot":
        """Return the same with what was liked lately, item id -> how often: it is shown to whom nothing is known of.

        The release's own popularity counts as PRIOR likes more, so that a handful of taps does not make a hit.
        """
        rows = self.vocab.rows(liked)
        share = PRIOR * self.share
        np.add.at(share, rows, list(liked.values()))
        share[0] = 0
        order = 1 + (-share[1:]).argsort(kind="stable") if len(share) > 1 else NO_ROWS
        return replace(self, cold=(order, share / max(float(share.max()), 1e-12)))

    def _warm(self) -> None:
        """Run every part once, so that the first request meets warm caches and a misfit shows now."""
        n, width = len(self.vocab) - 1, self.vectors.width
        same = self.prototypes.base.shape == self.vectors.base.shape
        if not len(self.index) == n == len(self.vectors) - 1 == len(self.bias) - 1 or not same:
            raise ReleaseDamaged(
                f"release {self.id} has {n} items, {len(self.vectors) - 1} vectors, {len(self.prototypes) - 1} prototypes "
                f"and {len(self.index)} in the index; "
                "roll back with: recsys rollback"
            )
        if n:
            one = np.ones(1, np.int64)
            user = self._users(Histories(np.array([0, 1]), one, one, one, one if self.surfaces else NOWHERE))[0]
            if user.shape != (width,) or not np.isfinite(user).all():
                raise ReleaseDamaged(f"release {self.id}: its user tower does not give {width} numbers; roll back with: recsys rollback")
            self._searched(user, 10, NO_ROW, NOBODY)
            self.recommend([Event(self.vocab.id(1), "play", self.now)], 10)

    def recommend(
        self,
        history: Iterable[Event] | History,
        k: int,
        exclude_seen: bool = True,
        exclude_items: Iterable[str] = (),
        include_items: Iterable[str] | None = None,
        filters: Filters | None = None,
        shown: np.ndarray | None = None,
    ) -> list[dict[str, Any]]:
        """Return up to `k` items for a history (oldest first), best first: item_id, score, source, title where known.

        Where include_items are given there are no others; filters: what must be true of an item (see serving.shelf); shown: fingerprints
        of items that were on earlier pages (see serving.cursor). What is left is ranked as if there were nothing else.

        An item whose newest event is a dislike or a skip stays out even where seen items are allowed; near copies of what is disliked stay
        out as well, and what is like it comes later (recsys.refused). The score is how likely the item is
        to be next, and the source ("tower", "neighbours" or "popular") who says most for it; of what is in the history already it is
        multiplied by what is known of going back to it, and may exceed 1. Without fusion the score of "tower" is the towers' inner product
        plus what the item's popularity, and going back to it, adds. For whom nothing is known, and at the end of a long list, "popular" is
        the share of the most popular item's views.
        """
        return self.recommend_many([Ask(History.of(history), k, exclude_seen, exclude_items, include_items, filters, shown)])[0]

    def recommend_many(self, asks: Sequence[Ask]) -> list[list[dict[str, Any]]]:
        """Return what `recommend` would to each, asked together: the towers, the neighbours and the index are each asked once."""
        asked = [self.understood(ask) for ask in asks]
        told = [one for one in asked if len(one.past.item)]
        if told:
            self._answered(told, max(fusion.BEST, *(ask.k for ask in asks)))
        return [self._list(one, ask.k) for ask, one in zip(asks, asked, strict=True)]

    def _list(self, asked: Asked, k: int) -> list[dict[str, Any]]:
        """Return one list of those that were asked together."""
        found = list[Found]()
        if len(asked.past.item):
            found = self._alone(asked, k) if self.fusion is None else self._fused(asked, k)
        if len(found) < k:
            rest = asked.without(row for row, _, _ in found)
            if len(asked.disliked):
                rest = rest.without((self.pushed(asked.disliked, np.arange(len(self.vectors))) == 0).nonzero()[0].tolist())
            order, score = (self.popular, self.popularity) if len(asked.past.item) or self.cold is None else self.cold
            more = order[first(order, rest.own, rest.out, k - len(found))].tolist()
            found += [(row, float(score[row]), "popular") for row in more]
        titles, name = self.titles, self.vocab.id
        return [
            {"item_id": name(row), "score": score, "source": source} if titles[row] is None else
            {"item_id": name(row), "title": titles[row], "score": score, "source": source}
            for row, score, source in found
        ]  # fmt: skip

    def arranged(
        self, ranked: list[dict[str, Any]], k: int, diversity: float, explore: float, seed: int, rules: Rules = NO_RULES
    ) -> list[dict[str, Any]]:
        """Return the `k` items to show of a longer ranked list: by the house's rules but for what is pinned (serving.rules), less like
        each other, and a share of the slots drawn (serving.arrange).

        With `explore` every item says its propensity, and one that was drawn has the source "explore"; the same seed draws the same.
        """
        ranked, scores, rows = self._in_line(ranked, diversity, rules)
        if explore and not rules.cap:  # drawn is from the best, however many the rules were shown
            ranked, scores = ranked[: POOL * k], scores[: POOL * k]
        groups, most = rules.groups(self.shelf, rows) if rules.cap else ([], {})
        if not explore and not groups:
            return ranked[:k]
        places, propensity, drawn = explored(scores, k, explore, np.random.default_rng(seed), groups, most)
        if not explore:
            return [ranked[place] for place in places.tolist()]
        return [
            ranked[place] | {"propensity": chance} | ({"source": "explore"} if by_chance else {})
            for place, chance, by_chance in zip(places.tolist(), propensity.tolist(), drawn.tolist(), strict=True)
        ]

    def chances(
        self, ranked: list[dict[str, Any]], k: int, diversity: float, explore: float, shown: Sequence[str]
    ) -> tuple[list[str], np.ndarray]:
        """Return the items that `arranged` would draw from where no rules are, and how likely each was to come to the place of each that
        was shown, given those before it, (len(shown), items): serving.arrange.propensities.
        """
        ranked, scores, _ = self._in_line(ranked, diversity, NO_RULES)
        ids = [item["item_id"] for item in ranked[: POOL * k]]
        place = {id: number for number, id in enumerate(ids)}
        return ids, propensities(scores[: POOL * k], np.array([place.get(id, -1) for id in shown], np.int64), explore)

    def _in_line(self, ranked: list[dict[str, Any]], diversity: float, rules: Rules) -> tuple[list[dict[str, Any]], np.ndarray, np.ndarray]:
        """Return a ranked list by the house's rules and less like each other, its scores, none of them negative, and its rows."""
        scores = np.array([item["score"] for item in ranked])
        scores -= min(0.0, float(scores.min(initial=0.0)))  # inner products, where the towers answer alone, may be negative
        ids = [item["item_id"] for item in ranked]
        rows = self.vocab.rows(ids)
        if rules.boost or rules.bury:
            scores = scores * rules.factors(self.shelf, ids, rows)
            ranked = [item | {"score": score} for item, score in zip(ranked, scores.tolist(), strict=True)]
            ranked, scores, rows = _in_order(ranked, scores, rows, (-scores).argsort(kind="stable"))
        if diversity:
            order = diversified(scores, self.vectors[rows], len(ranked), diversity)
            ranked, scores, rows = _in_order(ranked, scores, rows, order)
        return ranked, scores, rows

    def understood(self, ask: Ask) -> Asked:
        """Return the question of somebody; its past is empty where nothing in it is known."""
        allowed, out = self._allowed(ask.include_items, ask.filters), self.withdrawn
        if allowed is not None:
            out = seal(~allowed | out if len(out) else ~allowed)
        item = self.vocab.rows(ask.history.items)
        kind, time = np.array(ask.history.kinds, np.int64), np.array(ask.history.times, np.int64)
        known = (item > 0) & events.IS_HISTORY[kind]
        if not known.all():
            item, kind, time = item[known], kind[known], time[known]
        surface = np.array([events.surface_number(ask.history.surface)]) if self.surfaces else NOWHERE
        past = Histories(np.array([0, len(item)]), item, kind, time, surface)
        own, refuses = item, bool((kind == DISLIKE).any())
        if not ask.exclude_seen:  # what the last word says no to stays out all the same
            last_word = dict(zip(item.tolist(), kind.tolist(), strict=True))
            own = np.array([row for row, last in last_word.items() if last in NEGATIVE], np.int64)
        own = np.concatenate([NO_ROW, own, self.vocab.rows(ask.exclude_items), NO_ROWS if ask.shown is None else self._shown(ask.shown)])
        own.sort()
        had, disliked = NOTHING, NO_ROWS
        if not ask.exclude_seen:
            had = again.returns(past)
            kept = first(had.item, own, out, len(had.item))
            had = Returns(had.query[kept], had.item[kept], had.place[kept])
        if refuses:
            disliked = refused.disliked(past)[1]
        return Asked(past, had, disliked, own, out, allowed is not None)

    def _answered(self, asked: Sequence[Asked], depth: int) -> None:
        """Ask towers, index and neighbours what they say to everybody, all at once."""
        past = _together([one.past for one in asked])
        users = self._users(past if events.IS_POSITIVE[past.kind].all() else refused.readable(past, self.kinds))
        for one, user in zip(asked, users, strict=True):
            one.user = user
        if self.fusion is None:
            return
        plain = [one for one in asked if not one.selected]
        if plain:
            users = np.stack([one.user for one in plain]) if len(plain) < len(asked) else users
            scores, rows = self.index.search(users, depth + max(len(one.own) for one in plain))
            for one, score, row in zip(plain, scores, rows, strict=True):
                one.nearest = self._kept(one, score, row, depth)
        for one in asked:
            if one.selected:
                one.nearest = self._best(one, depth)[0]
        query, item, vote = self.neighbours.votes(past, np.array([max(self.now, one.past.time[-1]) for one in asked]))
        ends = np.searchsorted(query, np.arange(len(asked) + 1))
        for one, low, high in zip(asked, ends[:-1].tolist(), ends[1:].tolist(), strict=True):
            one.voted, one.vote = item[low:high], vote[low:high]

    def scores(self, history: History, rows: np.ndarray, **wish: Any) -> np.ndarray:
        """Return what `recommend` would score some rows, (R,), were they among the best; zeros for whom nothing is known."""
        asked = self.understood(Ask(history, 0, **wish))
        if not len(asked.past.item):
            return np.zeros(len(rows))
        self._answered([asked], fusion.BEST)
        if self.fusion is None:
            place = dict(zip(asked.had.item.tolist(), asked.had.place.tolist(), strict=True))
            pull = np.array([self.again.towers[place[row]] if row in place else 0.0 for row in rows.tolist()])
            with np.errstate(divide="ignore"):
                pull += np.log(self.pushed(asked.disliked, rows))
            return self.prototypes[rows] @ asked.user + self.bias[rows] + pull / self.scale
        known, said, factor, _ = self._judged(asked, fusion.BEST, fusion.BEST, rows)
        score = said.sum(axis=0) * (factor if len(factor) else 1.0)
        order = np.argsort(known)
        found: np.ndarray = score[order[np.searchsorted(known[order], rows)]]
        return found

    def experts(self, ask: Ask) -> dict[str, list[dict[str, Any]]]:
        """Return what each of SOURCES alone would recommend, best first; of whom nothing is known only what is popular can be said."""
        asked, k = self.understood(ask), ask.k
        found = {name: list[tuple[int, float]]() for name in SOURCES}
        if told := len(asked.past.item):
            self._answered([asked], max(fusion.BEST, k))
            rows, scores = self._best(asked, k)
            found["tower"] = list(zip(rows.tolist(), scores.tolist(), strict=True))
            order = (-asked.vote).argsort(kind="stable")
            voted, vote = asked.voted[order].astype(np.int64), asked.vote[order]
            found["neighbours"] = [(int(voted[at]), float(vote[at])) for at in first(voted, asked.own, asked.out, k).tolist()]
        order, score = (self.popular, self.popularity) if told or self.cold is None else self.cold
        found["popular"] = [(row, float(score[row])) for row in order[first(order, asked.own, asked.out, k)].tolist()]
        return {name: [self._item(row, score, name) for row, score in some] for name, some in found.items()}

    def _shown(self, shown: np.ndarray) -> np.ndarray:
        """Return the rows of items by their fingerprints."""
        values, rows = self.fingerprints
        places = ranges(np.searchsorted(values, shown), np.searchsorted(values, shown, side="right"))
        found: np.ndarray = rows[places]
        return found

    def _allowed(self, include_items: Iterable[str] | None, filters: Filters | None) -> np.ndarray | None:
        """Return which rows may be recommended, (n + 1,) bool; None for all."""
        if include_items is None and not filters:
            return None
        allowed = self.shelf.let_through(filters or {})
        if include_items is not None:
            included = np.zeros(len(self.vocab), bool)
            included[self.vocab.rows(include_items)] = True
            allowed = allowed & included
        return allowed

    def similar(self, item_id: str, k: int) -> list[dict[str, Any]]:
        """Return the `k` items nearest to one, without it, best first."""
        row = self.vocab.row(item_id)
        if not row:
            raise ItemNotFound(
                f"release {self.id} does not know item {item_id!r}; it will once it was put, or an event named it and an update ran"
            )
        rows, scores = self._searched(self.prototypes[row], k, np.array([0, row]), self.withdrawn, biased=False)
        return [self._item(*near, "tower") for near in zip(rows.tolist(), scores.tolist(), strict=True)]

    def onboarding(self, k: int) -> list[dict[str, Any]]:
        """Return `k` items to ask somebody about of whom nothing is known: popular ones, and each unlike the others."""
        ranked = self.recommend([], min(10 * k, 500))
        scores, rows = np.array([item["score"] for item in ranked]), self.vocab.rows(item["item_id"] for item in ranked)
        return [ranked[place] for place in diversified(scores, self.vectors[rows], k, UNLIKE).tolist()]

    def _users(self, past: Histories) -> np.ndarray:
        """Run the user tower on what it reads of histories -> (B, d), zeros where there is nothing to read."""
        parts = feed(past.start, past.item, past.kind, past.time, self.vectors.base, self.vectors.more, self.history)
        if self.surfaces:
            parts = (*parts, past.surface.astype(np.int64))
        told = parts[3] > 0
        if told.all():
            found: np.ndarray = self.user_tower.run(["user"], dict(zip(FEED, parts, strict=False)))[0]
            return found
        users = np.zeros((len(past), self.vectors.width), np.float32)
        if told.any():
            some = (part[told] for part in parts)
            users[told] = self.user_tower.run(["user"], dict(zip(FEED, some, strict=False)))[0]
        return users

    def pushed(self, disliked: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return what the scores of rows are multiplied by for what is disliked, (C,)."""
        return refused.factors(self.vectors[rows], self.vectors[disliked]) if len(disliked) else np.ones(len(rows), np.float32)

    def _alone(self, asked: Asked, k: int) -> list[Found]:
        """Return the best `k` by the towers; what somebody had already is scored beside the index.

        Where something is disliked the list is taken longer until nothing behind it, which may only lose, belongs in the answer.
        """
        had, depth = asked.had, k
        own = self.prototypes[had.item] @ asked.user + self.bias[had.item] + self.again.towers[had.place] / self.scale
        others = asked.without(had.item.tolist())
        while True:
            rows, raw = self._best(others, depth)
            last, full = raw[-1] if len(raw) else -np.inf, len(rows) >= depth
            rows, raw = np.concatenate([rows, had.item]), np.concatenate([raw, own])
            factor = self.pushed(asked.disliked, rows)
            with np.errstate(divide="ignore"):
                scores = raw + np.log(factor) / self.scale
            chosen = [place for place in np.lexsort((rows, -scores))[:k].tolist() if factor[place] > 0]
            if not len(asked.disliked) or not full or (len(chosen) == k and scores[chosen[-1]] > last):
                return [(int(rows[place]), float(scores[place]), "tower") for place in chosen]
            depth *= 4

    def _fused(self, asked: Asked, k: int) -> list[Found]:
        """Return the best `k` by all three experts.

        Asked are the best of each. Who is in none of these lists has no votes, and at most what the last of the others have: while that
        might be enough (Fagin's threshold algorithm, PODS 2001) the lists are taken longer.
        """
        depth, short = max(k, fusion.BEST), max(2 * k, SHORT)
        while True:
            rows, said, factor, limit = self._judged(asked, depth, short)
            row, score, source = best(rows, said, factor, k)
            if depth >= len(self.popular) or (len(row) == k and score[-1] > limit):
                found = zip(row.tolist(), score.tolist(), source.tolist(), strict=True)
                return [(one, worth, SOURCES[who]) for one, worth, who in found]
            if short < depth:
                short = depth
            else:
                depth = short = 4 * depth
                asked.nearest = self._best(asked, depth)[0]

    def _judged(self, asked: Asked, depth: int, short: int, more: np.ndarray = NO_ROWS) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """Return rows (C,), `more` among them, what each expert says of them (3, C), the factor of what they say together, (C,) or (0,), 0
        for near copies of what is disliked, and the most that any other row can have.

        Looked at are the best `depth` of the towers and `short` of the others, and what somebody had.
        """
        assert self.fusion is not None
        had, weights = asked.had, self.fusion.of(len(asked.past.item))
        rows, said, limit = opinions(
            asked.nearest[:depth], asked.voted, asked.vote, asked.own, asked.out, self.popular,
            np.concatenate([had.item, more]) if len(had.item) or len(more) else NO_ROWS,
            self.again.factors(had)[2] if len(had.item) else NO_FACTOR,
            self.prototypes.base, self.prototypes.more, self.bias, self.share, asked.user, self.scale, weights, short,
        )  # fmt: skip
        factor = self.lift[rows].astype(np.float64) if self.lifts else NO_FACTOR
        if len(asked.disliked):
            pushed = self.pushed(asked.disliked, rows)
            factor = factor * pushed if self.lifts else pushed.astype(np.float64)
        return rows, said, factor, limit * self.most_lift

    def _best(self, asked: Asked, depth: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows and scores of the best `depth` by the towers of what may be recommended, best first.

        Of a selection every item is scored: an index would have to be searched whole to find its few.
        """
        if not asked.selected:
            return self._searched(asked.user, depth, asked.own, asked.out)
        left = ~asked.out
        left[asked.own] = False
        rows = left.nonzero()[0]
        scores = self.prototypes[rows] @ asked.user + self.bias[rows]
        order = np.argsort(-scores, kind="stable")[:depth]
        return rows[order], scores[order]

    def _searched(
        self, query: np.ndarray, depth: int, own: np.ndarray, out: np.ndarray, biased: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and scores of the best `depth` items in the index and behind it that may be recommended, best first."""
        wanted = depth + len(own)
        while True:
            scores, found = self.index.search(query[None], wanted, biased=biased)
            kept = first(found[0], own, out, depth)
            if len(kept) == depth or wanted >= len(self.index):
                return self._with_late(query, found[0][kept], scores[0][kept], depth, own, out, biased)
            wanted *= 4  # so many of the nearest are barred

    def _kept(self, asked: Asked, scores: np.ndarray, found: np.ndarray, depth: int) -> np.ndarray:
        """Return the best `depth` rows of what the index found for somebody among others; where that is too few it is asked again."""
        kept = first(found, asked.own, asked.out, depth)
        if len(kept) < depth and len(found) < len(self.index):
            return self._searched(asked.user, depth, asked.own, asked.out)[0]
        return self._with_late(asked.user, found[kept], scores[kept], depth, asked.own, asked.out)[0]

    def _with_late(
        self, query: np.ndarray, rows: np.ndarray, scores: np.ndarray, depth: int, own: np.ndarray, out: np.ndarray, biased: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """Put what has come since the release into the best `depth` of it."""
        if not self.vocab.more:
            return rows, scores
        late = np.arange(len(self.vectors.base), len(self.vocab))
        late = late[first(late, own, out, len(late))]
        rows = np.concatenate([rows, late])
        scores = np.concatenate([scores, self.prototypes[late] @ query + (self.bias[late] if biased else 0)]).astype(np.float32)
        order = np.lexsort((rows, -scores))[:depth]
        return rows[order], scores[order]

    def _item(self, row: int, score: float, source: str) -> dict[str, Any]:
        return {**self.named(self.vocab.id(row)), "score": score, "source": source}

    def named(self, id: str) -> dict[str, Any]:
        """Name an item, with its title where there is one."""
        title = self.titles[self.vocab.row(id)]
        return {"item_id": id} if title is None else {"item_id": id, "title": title}


def _together(past: Sequence[Histories]) -> Histories:
    """Put histories of one person each into one."""
    if len(past) == 1:
        return past[0]
    columns = ([getattr(one, name) for one in past] for name in ("item", "kind", "time", "surface"))
    return Histories(np.cumsum([0, *(len(one.item) for one in past)]), *map(np.concatenate, columns))


def _listed(column: pa.ChunkedArray, part: int = 5_000) -> list[Any]:
    """Return a column as a list, made in parts: between two of them other threads come to their turn."""
    return [value for first in range(0, len(column), part) for value in column.slice(first, part).to_pylist()]


def _mapped(path: Path) -> np.ndarray:
    """Map an array from a file, as plain as any other: to ask a numpy.memmap costs several times as much."""
    return np.asarray(np.load(path, mmap_mode="r"))


def _in_order(
    ranked: list[dict[str, Any]], scores: np.ndarray, rows: np.ndarray, order: np.ndarray
) -> tuple[list[dict[str, Any]], np.ndarray, np.ndarray]:
    return [ranked[place] for place in order.tolist()], scores[order], rows[order]


def _by_fingerprint(ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return what cursors know items by, sorted, and the place of each, (n,)."""
    values = fingerprints(ids)
    places = np.argsort(values, kind="stable")
    return values[places], places


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
