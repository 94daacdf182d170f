"""All that a release holds, in memory: what one update starts from and the next one ends with."""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from recsys import again, fusion, refused
from recsys.again import Again
from recsys.batches import Examples, ItemCounts
from recsys.content import features
from recsys.errors import BadInput
from recsys.events import EVENT_TYPES, surface_number
from recsys.files import sha256
from recsys.fusion import Fusion, Votes
from recsys.index import QUESTIONS, ItemIndex
from recsys.log import Position
from recsys.neighbours import Neighbours
from recsys.registry import FORMAT, Release
from recsys.sessions import Histories, Pairs
from recsys.settings import Settings, as_toml, load_settings
from recsys.towers import Towers, columns
from recsys.vocab import Vocabulary
from training import export
from training.memory import Memory
from training.prototypes import Prototypes, askers

STATE, MEMORY = "strategy/state.safetensors", "memory:"
"""Where a release keeps what its strategy remembers, and how the names of the replay memory's parts begin there."""

Vectors = tuple[np.ndarray, np.ndarray]
"""What histories are read from and where items are found, (n + 1, d) each."""

Catalogue = dict[str, dict[str, Any]]
"""Item id -> what is known about it: title, genres, any other column."""


@dataclass(frozen=True)
class Candidate:
    """A trained recommender that has not been published.

    titles: title and genres by item id, for people to read. parent: the release it grew from, None for a first fit.
    kinds: how many events of each type it has learned from, by code. surfaces: the names of those that its user tower has heads for, in
    their order. number: how many updates lie behind it; with the seed it settles every draw. notes: losses and counts of the training.
    """

    settings: Settings
    towers: Towers
    prototypes: Prototypes
    vocab: Vocabulary
    counts: ItemCounts
    neighbours: Neighbours
    fusion: Fusion
    again: Again
    memory: Memory
    strategy_state: dict[str, Tensor]
    titles: Catalogue
    kinds: np.ndarray = field(default_factory=lambda: np.zeros(len(EVENT_TYPES), np.int64))
    surfaces: tuple[str, ...] = ()
    position: Position = field(default_factory=Position)
    parent: Release | None = None
    number: int = 0
    notes: dict[str, float] = field(default_factory=dict)

    def at(self, position: Position, parent: Release | None) -> "Candidate":
        """Return the candidate with the log position it was trained up to and the release it grew from."""
        return replace(self, position=position, parent=parent)

    def item_vectors(self) -> np.ndarray:
        """Return the unit vector of every row, (n + 1, d); row 0 is all zeros."""
        return self.towers.item_vectors()

    def vectors(self) -> Vectors:
        """Return the unit vectors that histories are read from, and those that items are found at; both are all zeros in row 0."""
        own = self.item_vectors()
        return own, self.prototypes.of(own)

    def logits(self, histories: Histories, vectors: Vectors, hidden: Pairs | None) -> np.ndarray:
        """Return what the towers say of every item, (B, n + 1); vectors as `vectors` gives them.

        hidden: people and rows that may not be recommended to them, in pairs; they and row 0 have -inf.
        """
        past = self.readable(histories)
        logits: np.ndarray = self.towers.user_vectors(past, vectors[0]) @ vectors[1].T
        logits += self.bias()
        logits *= self.towers.scale().item()
        logits[:, 0] = -np.inf
        if hidden is not None:
            logits[hidden] = -np.inf
        return logits

    def readable(self, histories: Histories) -> Histories:
        """Return what the user tower reads of histories: the newest events of those types that it has learned to read."""
        return refused.readable(histories, self.kinds).newest(self.settings.data.history)

    def alone(self, histories: Histories, vectors: Vectors, hidden: Pairs | None) -> np.ndarray:
        """Return the logits that the towers answer by where they answer alone, (B, n + 1): see `logits` and recsys.again."""
        logits, had = self.logits(histories, vectors, hidden), again.returns(histories)
        logits[had.query, had.item] += self.again.towers[had.place]
        return logits

    def votes(self, histories: Histories, now: np.ndarray, hidden: Pairs | None) -> Votes:
        """Return the neighbours' votes; now (B,) ms, hidden as for `logits`."""
        votes = self.neighbours.votes(histories, now)
        return votes if hidden is None else fusion.without(votes, *hidden, len(self.vocab))

    def fused(self, histories: Histories, now: np.ndarray, vectors: Vectors, hidden: Pairs | None) -> np.ndarray:
        """Return what is served, (B, n + 1), -inf for what is hidden: how likely each item is to be next by the mixture of `logits` and
        `votes`, times what is known of going back to it where somebody had it (recsys.again), `neighbours.fresh` where it is new, and
        less where it is like what they dislike, whose near copies are hidden too (recsys.refused).
        """
        logits, votes, had = self.logits(histories, vectors, hidden), self.votes(histories, now, hidden), again.returns(histories)
        length, fresh = np.diff(histories.start), self.settings.neighbours.fresh
        scores = fusion.mix(logits, votes, self.counts.share(), self.fusion.of(length), self.again.factors(had))
        if fresh != 1:
            scores[length > 0] *= fusion.lifts(self.counts.first, self.counts.now, fresh)  # the others are shown what is popular
        for query, factor in _pushed(histories, vectors[0]):
            scores[query, factor == 0] = -np.inf
            scores[query, factor > 0] *= factor[factor > 0]
        return scores

    def served(self, histories: Histories, now: np.ndarray, vectors: Vectors, hidden: Pairs | None) -> np.ndarray:
        """Return what is served, (B, n + 1): `fused` or, where neighbours.fuse is off, what the towers say alone, as inner products."""
        if self.settings.neighbours.fuse:
            return self.fused(histories, now, vectors, hidden)
        logits = self.alone(histories, vectors, hidden)
        with np.errstate(divide="ignore"):
            for query, factor in _pushed(histories, vectors[0]):
                logits[query] += np.log(factor)
        scores: np.ndarray = logits / self.towers.scale().item()
        return scores

    def bias(self) -> np.ndarray:
        """What each row's score starts from, whoever asks: its current popularity, weighed as the towers learned to, (n + 1,)."""
        return self.towers.popularity.item() / self.towers.scale().item() * self.counts.log_share()

    def write(self, folder: Path) -> dict[str, Any]:
        """Write every file of a release into `folder`; return what its manifest must say about them."""
        save_file(self.towers.state_dict(), folder / "towers.safetensors")
        towers = sha256(folder / "towers.safetensors")
        vectors, found_at = self.vectors()
        np.save(folder / "vectors.npy", vectors)
        np.save(folder / "prototypes.npy", found_at)
        np.save(folder / "people.npy", self.prototypes.people)
        np.save(folder / "bias.npy", self.bias())
        pq.write_table(self._items(), folder / "items.parquet", compression="zstd")
        parent_index = ItemIndex.read(self.parent.folder, self.parent.manifest["towers"]) if self.parent else None
        exact_below, min_recall = self.settings.index.exact_below, self.settings.index.min_recall
        people = askers(self.towers, self.memory.examples, vectors, QUESTIONS) if len(vectors) > exact_below else None
        index = ItemIndex.build(found_at, self.bias(), towers, exact_below, min_recall, parent_index, people)
        index.write(folder)
        self.neighbours.write(folder)
        self.fusion.write(folder)
        self.again.write(folder)
        export.user_tower(self.towers.users, folder / export.FILE, self.parent.file(export.FILE) if self.parent else None)
        (folder / "strategy").mkdir()
        save_file({**self.strategy_state, **memory_tensors(self.memory)}, folder / STATE)
        (folder / "config.toml").write_text(as_toml(self.settings))
        learned = {"items": len(self.vocab) - 1, "memory": len(self.memory), "index recall@100": round(index.recall, 4)}
        return {
            "position": self.position.as_dict(),
            "number": self.number,
            "now": self.counts.now,
            "towers": towers,
            "format": FORMAT,
            "strategy": self.settings.update.strategy,
            "lean": self.prototypes.lean,
            "scale": self.towers.scale().item(),
            "kinds": self.kinds.tolist(),
            "surfaces": list(self.surfaces),
            "metrics": {**learned, **{name: round(value, 5) for name, value in sorted(self.notes.items())}},
        }

    @classmethod
    def load(cls, release: Release, settings: Settings | None = None) -> "Candidate":
        """Read a published release back, as the parent of the next; `settings` replace those it was trained with.

        Those of the towers and of how events are read stay its own; asking for another raises BadInput.
        """
        release.verify()
        if release.manifest.get("format") != FORMAT:
            raise BadInput(f"release {release.id} was made by another version of recsys; train anew with: recsys fit")
        own = load_settings(release.file("config.toml"), environ={})
        _refuse_another_shape(release, own, settings or own)
        settings = (settings or own).model_copy(update={"model": own.model, "data": own.data})
        items = pq.read_table(release.file("items.parquet"))
        tower_features: list[list[int]] = [[], *items["features"].to_pylist()]
        weights = load_file(release.file("towers.safetensors"))
        heads = [surface_number(name) for name in release.manifest["surfaces"]]
        towers = Towers(own.model, tower_features, own.data.history, own.data.session_gap, columns(weights), heads)
        towers.load_state_dict(weights)
        state = load_file(release.file(STATE))
        neighbours = Neighbours.read(release.folder)
        neighbours.capacity = settings.neighbours.capacity  # holds from the next addition on
        memory = replace(memory_from(state), size=settings.update.memory)
        state = {name: tensor for name, tensor in state.items() if not name.startswith(MEMORY)}
        return cls(
            settings=settings,
            towers=towers.eval(),
            prototypes=Prototypes(np.load(release.file("people.npy")), release.manifest["lean"]),
            vocab=Vocabulary(items["item_id"].to_pylist()),
            counts=_counts(items, settings, release.manifest["now"]),
            neighbours=neighbours,
            fusion=Fusion.read(release.folder),
            again=Again.read(release.folder),
            memory=memory,
            strategy_state=state,
            titles={row["item_id"]: row for row in items.select(["item_id", "title", "genres"]).to_pylist()},
            kinds=np.array(release.manifest["kinds"], np.int64),
            surfaces=tuple(release.manifest["surfaces"]),
            position=release.position,
            parent=release,
            number=release.manifest["number"],
        )

    def _items(self) -> pa.Table:
        ids = self.vocab.ids[1:]
        known = [self.titles.get(id, {}) for id in ids]
        time = pa.timestamp("ms", tz="UTC")
        return pa.table(
            {
                "item_id": pa.array(ids, pa.string()),
                "row": pa.array(range(1, len(self.vocab)), pa.int32()),
                "first_seen": pa.array(self.counts.first[1:]).cast(time),
                "last_seen": pa.array(self.counts.last[1:]).cast(time),
                "count": pa.array(self.counts.count[1:], pa.float64()),
                "title": pa.array([item.get("title") for item in known], pa.string()),
                "genres": pa.array([item.get("genres") for item in known], pa.list_(pa.string())),
                "features": pa.array(self.towers.items.features()[1:], pa.list_(pa.int32())),
            }
        )


def _pushed(histories: Histories, vectors: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Give everybody who dislikes something, and what the score of each row is multiplied by for that, (n + 1,)."""
    query, item = refused.disliked(histories)
    for person in np.unique(query).tolist():
        yield person, refused.factors(vectors, vectors[item[query == person]])


def item_features(ids: tuple[str, ...], catalogue: Catalogue, buckets: int) -> list[list[int]]:
    """Return the content features of every row: none for row 0 and for items nobody described."""
    return [[], *(features(catalogue[id], buckets) if id in catalogue else [] for id in ids[1:])]


def _refuse_another_shape(release: Release, own: Settings, wanted: Settings) -> None:
    for section in ("model", "data"):
        old, new = getattr(own, section), getattr(wanted, section)
        for name in sorted(new.model_fields_set):
            if getattr(new, name) != getattr(old, name):
                raise BadInput(
                    f"{section}.{name} = {getattr(new, name)!r}, but release {release.id} was fitted with {getattr(old, name)!r}; "
                    "leave it out, or train anew with: recsys fit"
                )


def _counts(items: pa.Table, settings: Settings, now: int) -> ItemCounts:
    def column(name: str) -> np.ndarray:
        return np.concatenate([[0], items[name].cast(pa.int64()).to_numpy()])

    count = np.concatenate([[0.0], items["count"].to_numpy()])
    return ItemCounts(settings.training.count_half_life * 86_400_000, now, count, column("first_seen"), column("last_seen"))


def memory_tensors(memory: Memory) -> dict[str, Tensor]:
    """Return what is written of a memory, by name."""
    arrays = {
        **{name: getattr(memory.examples, name) for name in (f.name for f in fields(Examples))},
        "keys": memory.keys,
    }
    return {f"{MEMORY}{name}": torch.from_numpy(array) for name, array in arrays.items()}


def memory_from(state: dict[str, Tensor]) -> Memory:
    """Return the memory in what a release remembers, as large as it is."""
    arrays = {name.removeprefix(MEMORY): tensor.numpy() for name, tensor in state.items() if name.startswith(MEMORY)}
    keys = arrays.pop("keys")
    return Memory(len(keys), Examples(**arrays), keys)
