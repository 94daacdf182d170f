"""First training, and full retraining: a recommender from nothing but a log."""

import copy

import numpy as np
import pyarrow as pa
import torch

from recsys.again import Again
from recsys.batches import IMAGINED, Batches, Examples, ItemCounts
from recsys.errors import BadInput
from recsys.events import EVENT_TYPES, counted, positive
from recsys.fusion import Fusion
from recsys.losses import Candidates, NextItem, NextSession
from recsys.neighbours import Neighbours
from recsys.progress import Step, silent
from recsys.sessions import border, sessionise
from recsys.settings import Settings, Training
from recsys.towers import Towers
from recsys.vocab import Vocabulary
from training.candidate import Candidate, Catalogue, item_features
from training.growth import items_in
from training.learner import learn
from training.lessons import lessons as read
from training.memory import Memory
from training.prototypes import UNMEASURED, Prototypes, people
from training.strategies import Update, chosen

MOMENTS = 32
"""Snapshots of popularity over the log of a first fit."""


def fit(events: pa.Table, settings: Settings, catalogue: Catalogue, step: Step = silent, trained: Towers | None = None) -> Candidate:
    """Train towers on a table of events (recsys.events.SCHEMA).

    catalogue: what is known about items, by id. trained: towers that a fit on these events has made, under a strategy that
    may differ; they are taken as they are, for in a first fit a strategy only measures. Raises BadInput when there is
    nothing to learn from.
    """
    strategy, seed = chosen(settings), settings.training.seed
    torch.manual_seed(seed)
    events = counted(events, positive(settings.data.positive))
    vocab = Vocabulary(items_in(events))
    sessions = sessionise(events, vocab, settings.data.session_gap)
    liked, moment = sessions.positive, np.zeros(len(sessions), np.int16)
    none = ItemCounts.none(settings.training.count_half_life).grow(len(vocab))
    counts, moment[liked], shares = none.stream(sessions.item[liked], sessions.time[liked], MOMENTS)
    neighbours = Neighbours(capacity=settings.neighbours.capacity)
    neighbours.add(sessions)
    lessons = read(sessions, np.ones(len(sessions), bool), moment, neighbours, settings, seed)
    if not len(lessons):
        needs = "two positive events" if settings.model.objective == "next_item" else "two sessions (model.objective = next_session)"
        raise BadInput(f"nothing to learn in {len(events)} events: at least one person needs {needs}; import more of the log")
    features = item_features(vocab.ids, catalogue, settings.model.features)
    towers = Towers(settings.model, features, settings.data.history, settings.data.session_gap)
    memory = Memory.empty(settings.update.memory)
    task, wishes = objective(shares, lessons, memory, settings, seed), settings.training.wishes
    update = Update(None, memory, task, np.random.default_rng(seed), wishes)
    if trained is None:
        batches = Batches(lessons, settings.training.batch_size, seed, wishes)
        learn(towers, batches, settings.training.epochs, settings.training.lr, strategy, update, settings.training, step)
    else:
        towers.load_state_dict(trained.state_dict())
        towers.eval()  # as training leaves them: what is measured knows no dropout
    strategy.settle(towers, update)
    update.objective = objective(shares, lessons, memory, settings, seed)  # anew: what is measured must not depend on the steps taken
    strategy.finish(towers, lessons, update)
    return Candidate(
        settings=settings,
        towers=towers,
        prototypes=Prototypes(people(towers, [lessons]), UNMEASURED),
        vocab=vocab,
        counts=counts,
        neighbours=Neighbours(capacity=settings.neighbours.capacity) if strategy.keeps_nothing else neighbours,
        fusion=Fusion.start(settings.neighbours.share, settings.neighbours.popular),
        again=Again.start(),
        memory=memory if strategy.keeps_nothing else memory.add(lessons, [seed, 0]),
        strategy_state=copy.deepcopy(strategy.state()),
        titles={id: catalogue[id] for id in vocab.ids[1:] if id in catalogue},
        kinds=np.bincount(sessions.kind, minlength=len(EVENT_TYPES)),
        notes={**update.notes, "events": float(len(events)), "examples": float(len(lessons))},
    )


def objective(shares: np.ndarray, lessons: Examples, memory: Memory, settings: Settings, seed: int) -> NextItem:
    """Return the task loss, its target frequencies starting from those of what is about to be learned.

    shares (moments, n): log popularity at the moments of the lessons; what is remembered was watched under the average
    popularity of the memory, which becomes the last row.
    """
    rows = shares.shape[1]
    remembered = np.bincount(memory.examples.targets, minlength=rows) + IMAGINED
    shares = np.vstack([shares, np.log(remembered / remembered.sum())]).astype(np.float32)
    expected = np.bincount(lessons.targets, minlength=rows) + 1e-3
    candidates = Candidates(torch.from_numpy(expected), settings.training.negatives, settings.training.full_softmax_below, seed)
    given = candidates, torch.from_numpy(shares), precision(settings.training)
    if settings.model.objective == "next_item":
        return NextItem(*given)
    return NextSession(*given, border(settings.data.session_gap), settings.training.ahead)


def precision(settings: Training) -> torch.dtype:
    """Return in what the scores of a step are multiplied: bfloat16 where that is asked for, or the processor has products for it.

    On one thread a step takes a sixth less time so, and a gradient is off by 0.3%, far less than a batch is by its luck.
    """
    able = torch.cpu.get_capabilities()
    native = bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return torch.bfloat16 if settings.precision == "bfloat16" or (settings.precision == "auto" and native) else torch.float32
