"""A release to measure serving on: the default architecture, towers that know nothing, and as many items and people as are asked for."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from recsys.again import Again
from recsys.batches import ItemCounts
from recsys.events import CODE
from recsys.fusion import Fusion
from recsys.neighbours import Neighbours
from recsys.registry import Registry, Release
from recsys.sessions import Sessions
from recsys.settings import load_settings
from recsys.towers import Towers
from recsys.vocab import Vocabulary
from training.candidate import Candidate
from training.memory import Memory
from training.prototypes import Prototypes

NOW = 1_700_000_000_000


def popular_first(rng: np.random.Generator, count: int, items: int) -> np.ndarray:
    """Draw rows from 1 to `items`, the first ones most often, (count,)."""
    share = np.cumsum((np.arange(items) + 100.0) ** -0.8)
    return 1 + np.searchsorted(share, rng.random(count) * share[-1])


def release(folder: Path, rng: np.random.Generator, items: int, people: int, dim: int = 128) -> Release:
    """Publish a release into a folder of releases: items lie in clusters and people near them, as with trained towers."""
    settings, vocab = load_settings(overrides={"model.dim": dim}, environ={}), Vocabulary(f"i{n}" for n in range(1, items + 1))
    towers = Towers(settings.model, [[]] * len(vocab), settings.data.history).eval()
    centres = rng.normal(size=(1 + items // 200, dim))
    with torch.no_grad():
        own = centres[rng.integers(0, len(centres), len(vocab))] + 0.7 * rng.normal(size=(len(vocab), dim))
        towers.items.ids.weight.copy_(torch.from_numpy(own))
        towers.popularity.fill_(0.3)  # as on DIGINETICA
        for table in (towers.users.kind, towers.users.gap, towers.users.place):
            table.weight.zero_()
        for block in towers.users.encoder.blocks:  # people are found near what they watched last; the work is the same
            block.out.weight.zero_()
            block.mlp[-1].weight.zero_()
    none = ItemCounts.none(settings.training.count_half_life).grow(len(vocab))
    counts = replace(none, count=np.concatenate([[0], rng.pareto(1, items)]), now=NOW)
    owner, place = np.repeat(np.arange(people), 5), np.tile(np.arange(5), people)
    item, kind = popular_first(rng, 5 * people, items).astype(np.int32), np.full(5 * people, CODE["play"], np.int8)
    time = NOW - (people - owner) * 17_000 + place * 30_000
    memory = Neighbours(capacity=settings.neighbours.capacity)
    memory.add(Sessions([f"u{n}" for n in range(people)], np.arange(0, 5 * people + 1, 5), item, kind, time, owner, np.arange(5 * people)))
    weights = Fusion.start(settings.neighbours.share, settings.neighbours.popular)
    prototypes = Prototypes(np.zeros((len(vocab), dim), np.float32), 0.0)
    candidate = Candidate(settings, towers, prototypes, vocab, counts, memory, weights, Again.start(), Memory.empty(0), {}, {})
    registry = Registry(folder)
    with registry.draft() as draft:
        return registry.publish(draft, registry.next_id(), None, {**candidate.write(draft), "why": "benchmark", "seconds": {}})
