"""Whether a candidate can be served at all: what no release may ever be, however it came about."""

from typing import Any

import numpy as np
import torch

from training.candidate import Candidate

UNIT = 1e-2
"""So far from 1 may the length of a vector be that should be 1."""


def faults(candidate: Candidate, about: dict[str, Any] | None = None) -> list[str]:
    """Return what is wrong with a candidate, a sentence each; about: what its manifest will say, once it was written."""
    tensors = candidate.towers.state_dict().items()
    broken = [name for name, weights in tensors if weights.is_floating_point() and not torch.isfinite(weights).all()]
    if broken:  # everything else follows from that
        others = f" and {len(broken) - 1} more tensors of {len(tensors)}" if broken[1:] else ""
        way_out = "training has left all bounds; lower update.lr (training.lr of a fit), or what the strategies weigh"
        return [f"{broken[0]}{others} holds numbers that are none (NaN or infinite): {way_out}"]
    found = []
    for name, vectors in zip(("item vectors", "prototypes"), candidate.vectors(), strict=True):
        length = np.linalg.norm(vectors[1:], axis=1)
        wrong = ~(np.abs(length - 1) < UNIT)
        if wrong.any():
            row = 1 + int(np.flatnonzero(wrong)[0])
            one = f"that of {candidate.vocab.ids[row]!r} has length {length[row - 1]:.3g}"
            found.append(f"{wrong.sum():,} of {len(length):,} {name} are no unit vectors; {one}")
    for name, numbers in (("popularity", candidate.bias()), ("weights of the mixture", candidate.fusion.weights)):
        if not np.isfinite(numbers).all():
            found.append(f"{name}: numbers that are none (NaN or infinite)")
    recall, least = about["metrics"]["index recall@100"] if about else 1.0, candidate.settings.index.min_recall
    if recall < least:
        found.append(f"the index finds {recall:.3f} of the best 100 items, less than index.min_recall = {least:g}")
    return found
