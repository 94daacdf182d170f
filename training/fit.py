"""First training, and full retraining: a recommender from nothing but a log."""

import copy

import numpy as np
import pyarrow as pa
import torch

from recsys.batches import Batches, ItemCounts, examples
from recsys.errors import BadInput
from recsys.losses import Candidates, NextItem
from recsys.progress import Step, silent
from recsys.sessions import sessionise
from recsys.settings import Settings
from recsys.towers import Towers
from recsys.vocab import Vocabulary
from training.candidate import Candidate, Catalogue, item_features
from training.growth import items_in
from training.learner import learn
from training.memory import Memory
from training.strategies import Update, parse


def fit(events: pa.Table, settings: Settings, catalogue: Catalogue, step: Step = silent) -> Candidate:
    """Train towers on a table of events (recsys.events.SCHEMA).

    catalogue: what is known about items, by id. Raises BadInput when there is nothing to learn from.
    """
    seed = settings.training.seed
    torch.manual_seed(seed)
    vocab = Vocabulary(items_in(events))
    sessions = sessionise(events, vocab, settings.data.session_gap)
    lessons = examples(sessions, np.ones(len(sessions), bool), settings.data.history)
    if not len(lessons):
        raise BadInput(f"nothing to learn in {len(events)} events: at least one person needs two positive events; import more of the log")
    towers = Towers(settings.model, item_features(vocab.ids, catalogue, settings.model.features), settings.data.history)
    counts = ItemCounts.none(settings.training.count_half_life).grow(len(vocab)).add(sessions.item, sessions.time)
    memory = Memory.empty(settings.update.memory)
    update = Update(None, 0, memory, objective(counts, lessons.targets, settings, seed), np.random.default_rng(seed))
    strategy = parse(settings.update.strategy)
    batches = Batches(lessons, settings.training.batch_size, seed)
    learn(towers, batches, settings.training.epochs, settings.training.lr, strategy, update, settings.training, step)
    strategy.finish(towers, lessons, update)
    return Candidate(
        settings=settings,
        towers=towers,
        vocab=vocab,
        counts=counts,
        memory=memory.add(lessons, [seed, 0]),
        strategy_state=copy.deepcopy(strategy.state()),
        titles={id: catalogue[id] for id in vocab.ids[1:] if id in catalogue},
        notes={**update.notes, "events": float(len(events)), "examples": float(len(lessons))},
    )


def objective(counts: ItemCounts, targets: np.ndarray, settings: Settings, seed: int) -> NextItem:
    """Return the task loss, its target frequencies starting from what is about to be learned."""
    expected = np.bincount(targets, minlength=len(counts.count)) + 1e-3 * counts.count
    uniform, full_below = settings.training.negatives, settings.training.full_softmax_below
    return NextItem(Candidates(torch.from_numpy(expected), uniform, full_below, seed))
