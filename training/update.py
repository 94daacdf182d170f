"""One incremental update, start to end."""

import copy
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from recsys.batches import Batches, Examples
from recsys.events import POSITIVE, counted, positive, surface_number
from recsys.neighbours import Neighbours
from recsys.progress import Step, silent
from recsys.sessions import sessionise
from recsys.settings import Settings
from recsys.towers import Towers
from training.candidate import Candidate, Catalogue, item_features
from training.fit import objective
from training.fusing import reweighed
from training.growth import grown, items_in
from training.learner import learn
from training.lessons import lessons as read
from training.memory import Memory
from training.prototypes import Prototypes, people
from training.strategies import Composed, Update, chosen

MOMENTS = 8
"""Snapshots of popularity over the new events of an update."""


def update(parent: Candidate, new: pa.Table, past: pa.Table, settings: Settings, catalogue: Catalogue, step: Step = silent) -> Candidate:
    """Learn the events in `new`; return the next candidate and leave the parent as it was.

    past: earlier events of the people in `new`, the context that their new events are read in. catalogue: what is known
    about items, by id. The same parent, events and settings give the same candidate.
    """
    number = parent.number + 1
    strategy, seed = chosen(settings), settings.training.seed + 1000 * number
    torch.manual_seed(seed)
    new, past = (counted(table, positive(settings.data.positive)) for table in (new, past))
    vocab = parent.vocab.grow(items_in(new))
    sessions = sessionise(pa.concat_tables([past, new]), vocab, settings.data.session_gap)
    is_new = sessions.place >= len(past)
    moment = np.zeros(len(sessions), np.int16)
    known = parent.counts.grow(len(vocab))
    liked = is_new & sessions.positive
    counts, moment[liked], shares = known.stream(sessions.item[liked], sessions.time[liked], MOMENTS)
    neighbours = copy.copy(parent.neighbours)
    neighbours.add(sessions)
    lessons = read(sessions, is_new, moment, neighbours, settings, seed)

    features = [
        new_features or old_features
        for new_features, old_features in zip(
            item_features(vocab.ids, catalogue, settings.model.features),
            parent.towers.items.features() + [[]] * (len(vocab) - len(parent.vocab)),
            strict=True,
        )
    ]
    towers = grown(parent.towers, settings, features, sessions)

    strategy.load(parent.strategy_state)
    anchor = copy.deepcopy(towers).requires_grad_(False).eval()
    task = objective(shares, lessons, parent.memory, settings, seed)
    this = Update(
        anchor, parent.memory, task, np.random.default_rng(seed), settings.training.wishes, number, len(parent.vocab), _surfaces(new)
    )
    strategy.prepare(towers, this)
    lessons = strategy.select(lessons, this)
    this.learned = len(lessons)
    batches = Batches(lessons, settings.training.batch_size, seed, settings.training.wishes)
    learn(towers, batches, settings.update.epochs, settings.update.lr, strategy, this, settings.training, step)
    strategy.settle(towers, this)
    this.objective = objective(shares, lessons, parent.memory, settings, seed)
    strategy.finish(towers, lessons, this)

    child = replace(
        parent,
        settings=settings,
        towers=towers,
        prototypes=Prototypes(people(towers, [parent.memory.examples, lessons], parent.prototypes.people), parent.prototypes.lean),
        vocab=vocab,
        counts=counts,
        neighbours=Neighbours(capacity=settings.neighbours.capacity) if strategy.keeps_nothing else neighbours,
        memory=_memory(strategy, parent.memory, lessons, [settings.training.seed, number]),
        strategy_state=strategy.state(),
        titles={**parent.titles, **{id: catalogue[id] for id in vocab.ids[1:] if id in catalogue}},
        kinds=parent.kinds + np.bincount(sessions.kind[is_new], minlength=len(parent.kinds)),
        surfaces=_in_order(towers, {*parent.surfaces, *this.surfaces}),
        number=number,
        notes={
            **this.notes,
            "events": float(len(new)),
            "examples": float(len(lessons)),
            "new items": float(len(vocab) - len(parent.vocab)),
            "new people": float(_newcomers(new, past)),
        },
    )
    return reweighed(child, parent, sessions, is_new, [seed, 2])


def _memory(strategy: Composed, memory: Memory, lessons: Examples, seed: list[int]) -> Memory:
    return Memory.empty(memory.size) if strategy.keeps_nothing else memory.add(lessons, seed)


def _surfaces(new: pa.Table) -> dict[str, int]:
    """Count the events on each surface that say "more of this", the most first."""
    liked = new.filter(pc.is_in(new["event_type"], value_set=pa.array(sorted(POSITIVE))))["surface"]
    counts = {row["values"]: row["counts"] for row in pc.value_counts(liked).to_pylist() if row["values"]}
    return dict(sorted(counts.items(), key=lambda told: (-told[1], told[0])))


def _in_order(towers: Towers, names: set[str]) -> tuple[str, ...]:
    """Return the names of the surfaces that the user tower has heads for, in their order."""
    by_number = {surface_number(name): name for name in names}
    return tuple(by_number[number] for number in towers.users.labels.tolist())


def _newcomers(new: pa.Table, past: pa.Table) -> int:
    """Count the people in `new` who are not in `past`."""
    people = pc.unique(new["user_id"].drop_null())
    return len(people) - int(pc.sum(pc.is_in(people, value_set=pc.unique(past["user_id"].drop_null()))).as_py() or 0)
