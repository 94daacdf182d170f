"""How much neighbours, popularity and prototypes count: half way to what would have served best, by the live release before it learns."""

from dataclasses import replace

import numpy as np

from recsys import fusion
from recsys.fusion import Fusion
from recsys.sessions import Sessions, histories, repeats
from training.candidate import Candidate
from training.prototypes import LEANS

QUESTIONS, CELLS = 2000, 2**27
"""New events that are asked, a sample of all; and scores in memory at most: in a very large catalogue fewer are asked."""


def reweighed(parent: Candidate, sessions: Sessions, new: np.ndarray, exclude_seen: bool, seed: list[int]) -> tuple[Fusion, float]:
    """Return weights half way to those that would have served the new events best, and so the lean of the prototypes for the towers alone.

    new (N,) bool says which events the parent has not learned.

    With `exclude_seen` what a person had is neither asked nor recommended, as in serving.
    """
    known = replace(sessions, item=np.where(sessions.item < len(parent.vocab), sessions.item, 0))
    asked = new & known.positive & (known.item > 0)
    if exclude_seen:
        asked &= ~repeats(sessions)
    at = np.flatnonzero(asked)
    past = histories(known, at, 1)
    at = at[np.diff(past.start) > 0]  # who has no history is shown what is popular
    if not len(at):
        return parent.fusion, parent.prototypes.lean
    most = min(QUESTIONS, max(1, CELLS // len(parent.vocab)))
    at = np.sort(np.random.default_rng(seed).permutation(at)[:most])
    past = histories(known, at, parent.settings.serving.profile_events)
    hidden, target = past.pairs() if exclude_seen else None, known.item[at]
    vectors, found_at = parent.vectors()
    gains = [fusion.gains_of(parent.logits(past, (vectors, parent.prototypes.of(vectors, lean)), hidden), target).mean() for lean in LEANS]
    lean = parent.prototypes.halfway(LEANS[int(np.argmax(gains))]) if max(gains) > min(gains) else parent.prototypes.lean
    logits, votes = parent.logits(past, (vectors, found_at), hidden), parent.votes(past, known.time[at], hidden)
    return fusion.learned(parent.fusion, logits, votes, parent.counts.share(), np.diff(past.start), target), lean
