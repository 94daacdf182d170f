"""From a history to a list of items: the live release in memory, and how the next one takes its place."""

import asyncio
import logging
import threading
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from safetensors import SafetensorError, safe_open

from recsys import again, events, fusion, refused
from recsys.again import Again, Returns
from recsys.catalogue import SCHEMA as CATALOGUE
from recsys.catalogue import WITHDRAWN, Catalogue
from recsys.content import features, placed
from recsys.errors import RecsysError, ReleaseDamaged
from recsys.fusion import Fusion, Votes
from recsys.index import ItemIndex
from recsys.neighbours import Neighbours
from recsys.registry import FORMAT, Registry, Release
from recsys.sessions import Histories, gap_buckets, ranges
from recsys.vocab import Vocabulary
from serving.arrange import diversified, explored
from serving.cursor import fingerprints
from serving.profiles import Event
from serving.shelf import Filters, Shelf
from serving.stock import Names, Rows

_log = logging.getLogger("recsys.engine")

SOURCES = ("tower", "neighbours", "popular")
"""Who may say most for an item."""

WAY_OUT = "make another live with: recsys rollback or recsys fit"


NO_ROWS = np.zeros(0, np.int64)
NOTHING = Returns(NO_ROWS, NO_ROWS, NO_ROWS)
DISLIKE = events.CODE["dislike"]

REASONS = 10
"""Newest watched items that are asked what they say for a recommendation."""

RANKED = 500
"""So far a place is looked for that is not among those shown."""

Found = tuple[int, float, str]
"""Row, score and source."""


class ItemNotFound(RecsysError):
    """The live release does not know that item."""


@dataclass(frozen=True)
class Asked:
    """One person's question: their vector user (d,), their past, what of it may come again, and the rows that they dislike.

    barred (n + 1,) bool: what may not be recommended to them; few: how many of these are their own doing, and lie near what they like;
    selected: whether filters or a selection left only a part of the catalogue.
    """

    user: np.ndarray
    past: Histories
    had: Returns
    disliked: np.ndarray
    barred: np.ndarray
    few: int = 0
    selected: bool = False


@dataclass(frozen=True)
class Snapshot:
    """One release, ready to answer; nothing in it changes.

    By vocabulary row: vectors (n + 1, d) that histories are read from, prototypes (n + 1, d) that items are found at and bias (n + 1,),
    mapped from files; popularity (n + 1,) as a share of the most popular item's, share (n + 1,) of all that is watched. popular (n,) rows,
    most popular first; lift (n + 1,): what the fused score of whoever has a history is multiplied by; kinds: how many events of each type
    the towers have learned from; scale: what turns the index's scores into logits; now: the newest event that the release has learned, ms.
    withdrawn (n + 1,) bool: what nobody is recommended any more, None where that is nothing; fingerprints: what cursors know items by,
    sorted, and whose row each is. Behind the n items of the release, and not in its index, stand those that came since (`stocked`).
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
    scale: float
    now: int
    shelf: Shelf
    withdrawn: np.ndarray | None
    fingerprints: tuple[np.ndarray, np.ndarray]
    fresh: float
    buckets: int
    folder: Path
    user_tower: onnxruntime.InferenceSession

    @cached_property
    def most_lift(self) -> float:
        """What an item's score is multiplied by at most."""
        return float(self.lift.max())

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
        vocab, none = Vocabulary(items["item_id"].to_pylist()), np.zeros((0, 0), np.float32)
        return cls(
            id=release.id,
            history=config["data"]["history"],
            vocab=Names(vocab, []),
            titles=[None, *items["title"].to_pylist()],
            vectors=Rows(_mapped(release.file("vectors.npy")), none),
            prototypes=Rows(_mapped(release.file("prototypes.npy")), none),
            bias=_mapped(release.file("bias.npy")),
            popular=1 + np.argsort(-count[1:], kind="stable"),
            popularity=count / max(count.max(), 1e-9),
            share=count / max(count.sum(), 1e-12),
            lift=fusion.lifts(first, now, config["neighbours"]["fresh"]),
            index=ItemIndex.read(release.folder, towers=release.manifest["towers"]),
            neighbours=Neighbours.read(release.folder),
            fusion=Fusion.read(release.folder) if config["neighbours"]["fuse"] else None,
            again=Again.read(release.folder),
            kinds=np.array(release.manifest["kinds"], np.int64),
            scale=release.manifest["scale"],
            now=now,
            shelf=Shelf(CATALOGUE.empty_table(), vocab),
            withdrawn=None,
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
        vocab = Names(self.vocab.base, [ids[place] for place in come])
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
            return np.concatenate([numbers, np.full(len(come), value, numbers.dtype)]) if come else numbers

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
            withdrawn=withdrawn if withdrawn.any() else None,
            fingerprints=(np.insert(self.fingerprints[0], place, values), np.insert(self.fingerprints[1], place, rows + late[:1].sum())),
        )

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
            user = self._user(np.ones(1, np.int64), np.zeros(1, np.int64), np.zeros(1, np.int64))
            if user.shape != (width,) or not np.isfinite(user).all():
                raise ReleaseDamaged(f"release {self.id}: its user tower does not give {width} numbers; roll back with: recsys rollback")
            self._searched(user, 10, np.zeros(len(self.vocab), bool), 0)
            self.recommend([Event(self.vocab.id(1), "play", self.now)], 10)

    def recommend(
        self,
        history: Sequence[Event],
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
        asked, barred = self._asked(history, exclude_seen, exclude_items, include_items, filters, shown)
        found: list[Found] = []
        if asked is not None:
            found = self._alone(asked, k) if self.fusion is None else self._fused(asked, k)
            if len(found) < k and len(asked.disliked):
                barred |= self._pushed(asked.disliked, np.arange(len(self.vectors))) == 0
        if len(found) < k:
            barred[[row for row, _, _ in found]] = True
            rest = self._most_popular(barred, k - len(found), len(found)).tolist()
            found += [(row, float(self.popularity[row]), "popular") for row in rest]
        return [self._item(*each) for each in found]

    def arranged(self, ranked: list[dict[str, Any]], k: int, diversity: float, explore: float, seed: int) -> list[dict[str, Any]]:
        """Return the `k` items to show of a longer ranked list: less like each other, and a share of the slots drawn (serving.arrange).

        With `explore` every item says its propensity, and one that was drawn has the source "explore"; the same seed draws the same.
        """
        scores = np.array([item["score"] for item in ranked])
        scores -= min(0.0, float(scores.min(initial=0.0)))  # inner products, where the towers answer alone, may be negative
        if diversity:
            order = diversified(scores, self.vectors[self.vocab.rows(item["item_id"] for item in ranked)], len(ranked), diversity)
            ranked, scores = [ranked[place] for place in order.tolist()], scores[order]
        if not explore:
            return ranked[:k]
        places, propensity, drawn = explored(scores, k, explore, np.random.default_rng(seed))
        return [
            ranked[place] | {"propensity": chance} | ({"source": "explore"} if by_chance else {})
            for place, chance, by_chance in zip(places.tolist(), propensity.tolist(), drawn.tolist(), strict=True)
        ]

    def because(self, history: Sequence[Event], items: Sequence[dict[str, Any]], **wish: Any) -> list[list[dict[str, Any]]]:
        """Return for each recommended item which of the newest watched ones speak for it, at most two, the one that says most first.

        wish: what `recommend` was asked beside. Each is asked what it says by leaving it out of the history and scoring again: `share` of
        the score goes with it. What lowers nothing is not named, so an item that is shown to everybody has no reason.
        """
        rows = self.vocab.rows(item["item_id"] for item in items)
        liked = [event.item_id for event in history if event.event_type in events.POSITIVE and self.vocab.row(event.item_id)]
        newest = list(dict.fromkeys(reversed(liked)))[:REASONS]
        whole = self._scores(history, rows, **wish)
        lost = np.zeros((len(newest), len(rows)))
        for number, id in enumerate(newest):
            lost[number] = whole - self._scores([event for event in history if event.item_id != id], rows, **wish)
        reasons = []
        for place, score in enumerate(whole.tolist()):
            best = [number for number in np.argsort(-lost[:, place], kind="stable")[:2].tolist() if lost[number, place] > 1e-9]
            shares = [min(1.0, float(lost[number, place]) / max(score, 1e-12)) for number in best]
            reasons.append([self._named(newest[number]) | {"share": share} for number, share in zip(best, shares, strict=True)])
        return reasons

    def why_not(
        self,
        history: Sequence[Event],
        item_id: str,
        k: int,
        exclude_seen: bool = True,
        exclude_items: Sequence[str] = (),
        include_items: Sequence[str] | None = None,
        filters: Filters | None = None,
    ) -> dict[str, Any]:
        """Say at which stage an item falls out of somebody's list, or where it stands: stage, detail, rank and score where it has them."""
        row = self.vocab.row(item_id)
        if not row:
            return _fell("unknown", f"neither release {self.id} nor the shelf has it; put it, or update after somebody watched it")
        if self.withdrawn is not None and self.withdrawn[row]:
            return _fell("withdrawn", "it was withdrawn; put it again to bring it back")
        words = [event for event in history if event.item_id == item_id and event.event_type in events.HISTORY]
        if words and words[-1].event_type in events.NEGATIVE:
            return _fell(words[-1].event_type, f"the person's last word about it is a {words[-1].event_type}")
        if words and exclude_seen:
            return _fell("seen", "the person had it already, and exclude_seen is true")
        if item_id in exclude_items:
            return _fell("excluded", "exclude_items names it")
        if include_items is not None and item_id not in include_items:
            return _fell("not included", "include_items does not name it")
        if filters and not self.shelf.let_through(filters)[row]:
            missed = [name for name, condition in filters.items() if not self.shelf.let_through({name: condition})[row]]
            return _fell("filtered", f"it does not meet the filter on {', '.join(missed)}")
        asked, _ = self._asked(history, exclude_seen)
        if asked is not None and len(asked.disliked) and self._pushed(asked.disliked, np.array([row]))[0] == 0:
            closest = asked.disliked[np.argmax(self.vectors[asked.disliked] @ self.vectors[row])]
            return _fell("near copy", f"it is nearly the same as {self.vocab.id(int(closest))!r}, which the person dislikes")
        found = self.recommend(history, max(k, RANKED), exclude_seen, exclude_items, include_items, filters)
        rank = next((place for place, item in enumerate(found, 1) if item["item_id"] == item_id), None)
        if rank is None:
            return _fell("ranked", f"it stands behind the best {len(found)}")
        about = {"rank": rank, "score": found[rank - 1]["score"], "source": found[rank - 1]["source"]}
        if rank > k:
            return _fell("ranked", f"it stands at place {rank}, and {k} are shown") | about
        return {"stage": "recommended", "detail": f"it is shown, at place {rank}"} | about

    def _asked(
        self,
        history: Sequence[Event],
        exclude_seen: bool,
        exclude_items: Iterable[str] = (),
        include_items: Iterable[str] | None = None,
        filters: Filters | None = None,
        shown: np.ndarray | None = None,
    ) -> tuple[Asked | None, np.ndarray]:
        """Return the question of somebody with this history, None where nothing of it is known, and what is barred, to be written to."""
        barred = np.zeros(len(self.vocab), bool) if self.withdrawn is None else self.withdrawn.copy()
        allowed = self._allowed(include_items, filters)
        if allowed is not None:
            barred |= ~allowed
        rows = self.vocab.rows([event.item_id for event in history])
        kinds = np.array([events.CODE[event.event_type] for event in history], np.int64)
        known = np.flatnonzero((rows > 0) & events.IS_HISTORY[kinds]) if len(history) else NO_ROWS
        rows, kinds = rows[known].astype(np.int64), kinds[known]
        own = rows
        if not exclude_seen:  # what the last word says no to stays out all the same
            last_word = dict(zip(rows.tolist(), kinds.tolist(), strict=True))
            own = np.array([row for row, kind in last_word.items() if not events.IS_POSITIVE[kind]], np.int64)
        own = np.concatenate([own, self.vocab.rows(exclude_items), NO_ROWS if shown is None else self._shown(shown)])
        barred[own.astype(np.int64)] = True
        barred[0] = True
        if not len(known):
            return None, barred
        time = np.array([history[place].timestamp for place in known.tolist()], np.int64)
        past, had, disliked = Histories(np.array([0, len(known)]), rows, kinds, time), NOTHING, NO_ROWS
        read = past if events.IS_POSITIVE[kinds].all() else refused.readable(past, self.kinds)
        newest = slice(-self.history, None)
        user = self._user(read.item[newest], read.kind[newest], gap_buckets(read.time[newest]))
        if not exclude_seen:
            had = again.returns(past)
            kept = ~barred[had.item]
            had = Returns(had.query[kept], had.item[kept], had.place[kept])
        if (kinds == DISLIKE).any():
            disliked = refused.disliked(past)[1]
        return Asked(user, past, had, disliked, barred, len(own), allowed is not None), barred

    def _scores(self, history: Sequence[Event], rows: np.ndarray, exclude_seen: bool = True, **wish: Any) -> np.ndarray:
        """Return what `recommend` would score some rows, (R,), were they among the best; zeros for whom nothing is known."""
        asked, _ = self._asked(history, exclude_seen, **wish)
        if asked is None:
            return np.zeros(len(rows))
        if self.fusion is None:
            place = dict(zip(asked.had.item.tolist(), asked.had.place.tolist(), strict=True))
            pull = np.array([self.again.towers[place[row]] if row in place else 0.0 for row in rows.tolist()])
            with np.errstate(divide="ignore"):
                pull += np.log(self._pushed(asked.disliked, rows))
            return self.prototypes[rows] @ asked.user + self.bias[rows] + pull / self.scale
        known, score, _, _ = self._judged(asked, self._votes(asked), fusion.BEST, rows)
        return score[np.searchsorted(known, rows)]

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
                f"release {self.id} does not know item {item_id!r}; an item is known once an event named it and an update ran"
            )
        barred = np.zeros(len(self.vocab), bool) if self.withdrawn is None else self.withdrawn.copy()
        barred[[0, row]] = True
        rows, scores = self._searched(self.prototypes[row], k, barred, 1, biased=False)
        return [self._item(*near, "tower") for near in zip(rows.tolist(), scores.tolist(), strict=True)]

    def _user(self, rows: np.ndarray, kinds: np.ndarray, gaps: np.ndarray) -> np.ndarray:
        """Run the user tower on one history: (L,) each -> (d,), zeros where there is nothing to read."""
        if not len(rows):
            return np.zeros(self.vectors.width, np.float32)
        feed = {
            "items": np.ascontiguousarray(self.vectors[rows], np.float32)[None],
            "kinds": kinds.astype(np.int64)[None],
            "gaps": gaps.astype(np.int64)[None],
            "lengths": np.array([len(rows)], np.int64),
        }
        return self.user_tower.run(["user"], feed)[0][0]

    def _pushed(self, disliked: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return what the scores of rows are multiplied by for what is disliked, (C,)."""
        return refused.factors(self.vectors[rows], self.vectors[disliked]) if len(disliked) else np.ones(len(rows), np.float32)

    def _alone(self, asked: Asked, k: int) -> list[Found]:
        """Return the best `k` by the towers; what somebody had already is scored beside the index.

        Where something is disliked the list is taken longer until nothing behind it, which may only lose, belongs in the answer.
        """
        had, depth = asked.had, k
        own = self.prototypes[had.item] @ asked.user + self.bias[had.item] + self.again.towers[had.place] / self.scale
        barred = asked.barred.copy()
        barred[had.item] = True
        others = replace(asked, barred=barred, few=asked.few + len(had.item))
        while True:
            rows, raw = self._list(others, depth)
            last, full = raw[-1] if len(raw) else -np.inf, len(rows) >= depth
            rows, raw = np.concatenate([rows, had.item]), np.concatenate([raw, own])
            factor = self._pushed(asked.disliked, rows)
            with np.errstate(divide="ignore"):
                scores = raw + np.log(factor) / self.scale
            best = [place for place in np.lexsort((rows, -scores))[:k].tolist() if factor[place] > 0]
            if not len(asked.disliked) or not full or (len(best) == k and scores[best[-1]] > last):
                return [(int(rows[place]), float(scores[place]), "tower") for place in best]
            depth *= 4

    def _fused(self, asked: Asked, k: int) -> list[Found]:
        """Return the best `k` by all three experts.

        Asked are the best of each. Who is in none of these lists has no votes, and at most what the last of the others have: while that
        might be enough (Fagin's threshold algorithm, PODS 2001) the lists are taken longer.
        """
        votes, depth = self._votes(asked), max(k, fusion.BEST)
        while True:
            rows, score, by_expert, limit = self._judged(asked, votes, depth)
            best = np.lexsort((rows, -score, score == 0))[:k]
            best = best[score[best] > 0]
            if depth >= len(self.popular) or (len(best) == k and score[best[-1]] > limit):
                source = np.array(SOURCES)[by_expert.argmax(axis=0)]
                return list(zip(rows[best].tolist(), score[best].tolist(), source[best].tolist(), strict=True))
            depth *= 4

    def _votes(self, asked: Asked) -> Votes:
        """Return the neighbours' votes for what may be recommended."""
        past = asked.past
        votes = self.neighbours.votes(past, np.array([max(self.now, past.time[-1])]))
        kept = ~asked.barred[votes[1]]
        return votes[0][kept], votes[1][kept], votes[2][kept]

    def _judged(
        self, asked: Asked, votes: Votes, depth: int, more: np.ndarray = NO_ROWS
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
        """Return rows (C,), `more` among them, their scores (C,), which are 0 for near copies of what is disliked, what of them each expert
        says (3, C), and the most that any other row can have.
        """
        assert self.fusion is not None
        weights = self.fusion.of(np.array([len(asked.past.item)]))[0]
        rows, by_expert, limit = self._opinions(asked, votes, weights, depth, more)
        by_expert[:, np.searchsorted(rows, asked.had.item)] *= self.again.factors(asked.had)[2]
        score = by_expert.sum(axis=0) * self.lift[rows] * self._pushed(asked.disliked, rows)
        return rows, score, by_expert, limit * self.most_lift

    def _opinions(
        self, asked: Asked, votes: Votes, weights: np.ndarray, depth: int, more: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, float]:
        """Return rows (C,), what towers, neighbours and popularity say for each (3, C), and the most that any other row can have."""
        nearest, _ = self._list(asked, depth)
        popular = self._most_popular(asked.barred, depth, asked.few)
        wanted, place = np.zeros(len(self.vocab), bool), np.empty(len(self.vocab), np.int64)
        for part in (nearest, votes[1], asked.had.item, popular, more):
            wanted[part] = True
        rows = np.flatnonzero(wanted)
        place[rows] = np.arange(len(rows))
        logits = self.scale * (self.prototypes[rows] @ asked.user + self.bias[rows])
        best = logits[place[nearest]][None]
        total = float(fusion.log_total(best)[0, 0]) if len(nearest) else 0.0
        by_expert = np.zeros((3, len(rows)))
        by_expert[0] = (1 - weights.sum()) * np.exp(logits - total)
        by_expert[1, place[votes[1]]] = weights[0] * fusion.shares_of(votes[2], votes[0], 1)
        by_expert[2] = weights[1] * self.share[rows]
        last = float(np.exp(best.min() - total)) if len(nearest) else 1.0
        least = self.share[popular[-1]] if len(popular) else 0.0
        return rows, by_expert, float((1 - weights.sum()) * last + weights[1] * least)

    def _list(self, asked: Asked, depth: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows and scores of the best `depth` by the towers of what may be recommended, best first.

        Of a selection every item is scored: an index would have to be searched whole to find its few.
        """
        if not asked.selected:
            return self._searched(asked.user, depth, asked.barred, asked.few)
        rows = np.flatnonzero(~asked.barred)
        scores = self.prototypes[rows] @ asked.user + self.bias[rows]
        best = np.argsort(-scores, kind="stable")[:depth]
        return rows[best], scores[best]

    def _most_popular(self, barred: np.ndarray, k: int, few: int) -> np.ndarray:
        """Return the `k` most popular rows that may be recommended; `few`: how many of the popular ones are likely barred."""
        head = self.popular[: k + few]
        head = head[~barred[head]]
        if len(head) < k:
            head = self.popular[~barred[self.popular]]
        return head[:k]

    def _searched(self, query: np.ndarray, depth: int, barred: np.ndarray, few: int, biased: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Return rows and scores of the best `depth` items in the index and behind it that are not barred, best first."""
        wanted = depth + few
        while True:
            scores, found = self.index.search(query[None], wanted, biased=biased)
            kept = ~barred[np.maximum(found[0], 0)]  # where there are fewer the index says -1, and row 0 is barred
            rows, best = found[0][kept][:depth], scores[0][kept][:depth]
            if len(rows) == depth or wanted >= len(self.index):
                break
            wanted *= 4  # so many of the nearest are barred
        if not self.vocab.more:
            return rows, best
        late = np.arange(len(self.vectors.base), len(self.vocab))
        late = late[~barred[late]]
        rows = np.concatenate([rows, late])
        best = np.concatenate([best, self.prototypes[late] @ query + (self.bias[late] if biased else 0)]).astype(np.float32)
        order = np.lexsort((rows, -best))[:depth]
        return rows[order], best[order]

    def _item(self, row: int, score: float, source: str) -> dict[str, Any]:
        return {**self._named(self.vocab.id(row)), "score": score, "source": source}

    def _named(self, id: str) -> dict[str, Any]:
        """Name an item, with its title where there is one."""
        title = self.titles[self.vocab.row(id)]
        return {"item_id": id} if title is None else {"item_id": id, "title": title}


class Engine:
    """The live snapshot, and the watch that replaces it when another release goes live.

    A request reads `snapshot` once and finishes on it. A release that cannot be served is refused with one line in the
    log, and the old one keeps serving. items: the folder of the catalogue, which may grow at any time.
    """

    def __init__(self, releases: Path, watch_seconds: float = 1.0, items: Path | None = None):
        self.registry, self.catalogue = Registry(releases), Catalogue(items) if items else None
        self.watch_seconds = watch_seconds
        self.snapshot: Snapshot | None = None
        self._plain: Snapshot | None = None
        self._stock: tuple[str, list[Path]] | None = None
        self._refused: tuple[str, int] | None = None
        self._one_at_a_time = threading.Lock()

    @property
    def missing(self) -> str:
        """Why there is no snapshot, and the way out."""
        if self._refused:
            return f"release {self._refused[0]} cannot be served; {WAY_OUT}"
        return "there is no release yet; train one with: recsys fit"

    def refresh(self) -> bool:
        """Load the release that CURRENT names, if it is another than the live one, and what the catalogue says of items; say whether
        another release took the live one's place.
        """
        with self._one_at_a_time:
            before, after = self._plain, self._released()
            if after is None:
                return False
            stock = (after.id, self.catalogue.segments()) if self.catalogue else (after.id, [])
            if after is not before or stock != self._stock:
                self.snapshot = self._stocked(after, stock)
            if after is not before:
                _log.info("release %s is live", after.id)
            return after is not before

    def put(self, row: dict[str, Any]) -> None:
        """Write a row into the catalogue and serve by it; raise OSError where it cannot be written."""
        assert self.catalogue is not None, "an engine without a catalogue has nothing to put"
        table = pa.Table.from_pylist([row])
        for place, name in enumerate(table.column_names):
            if name in CATALOGUE.names:
                field = CATALOGUE.field(name)
                table = table.set_column(place, field, table[name].cast(field.type))
        self.catalogue.put(table)
        self.refresh()

    def _released(self) -> Snapshot | None:
        """Return the release that CURRENT names or, where that cannot be served, the one that was served before."""
        try:
            id, pointed = self.registry.current(), self.registry.pointer.stat().st_mtime_ns
        except FileNotFoundError:
            return self._plain
        if id is None or (self._plain is not None and id == self._plain.id) or self._refused == (id, pointed):
            return self._plain
        try:
            self._plain = Snapshot.load(self.registry.open(id))
        except RecsysError as error:
            self._refused = (id, pointed)
            serving = f"release {self._plain.id} keeps serving" if self._plain else f"no release is serving ({WAY_OUT})"
            _log.error("refused release %s, %s: %s", id, serving, error)
            return self._plain
        self._refused = None
        return self._plain

    def _stocked(self, plain: Snapshot, stock: tuple[str, list[Path]]) -> Snapshot:
        """Return a release with what the catalogue says; one that cannot be read says nothing, and that is logged."""
        self._stock = stock
        if not stock[1] or self.catalogue is None:
            return plain
        try:
            return plain.stocked(self.catalogue.read())
        except (pa.ArrowException, KeyError, ValueError, SafetensorError) as error:
            _log.error("the catalogue in %s is left out: %s", self.catalogue.folder, error)
            return plain

    async def watch(self) -> None:
        """Look for a new release and new items every `watch_seconds`, in a thread, until cancelled."""
        while True:
            await asyncio.sleep(self.watch_seconds)
            try:
                await asyncio.to_thread(self.refresh)
            except OSError as error:  # a disk that is away for a moment must not end the watch
                _log.error("cannot look for a new release: %s", error)


def _mapped(path: Path) -> np.ndarray:
    """Map an array from a file, as plain as any other: to ask a numpy.memmap costs several times as much."""
    return np.asarray(np.load(path, mmap_mode="r"))


def _fell(stage: str, detail: str) -> dict[str, Any]:
    return {"stage": stage, "detail": detail, "rank": None, "score": None, "source": None}


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
