"""How much neighbours, popularity, prototypes and repeats count: what would have served best, by the live release before it learns."""

from dataclasses import replace

import numpy as np

from recsys import again, fusion
from recsys.again import Returns
from recsys.fusion import blocks, part_of
from recsys.sessions import Sessions, histories, repeats
from training.candidate import Candidate
from training.prototypes import LEANS

QUESTIONS, CELLS = 2000, 2**27
"""New events that are asked, a sample of all; and scores in memory at most: in a very large catalogue fewer are asked."""


def reweighed(candidate: Candidate, live: Candidate, sessions: Sessions, new: np.ndarray, seed: list[int]) -> Candidate:
    """Return the candidate with weights that would have served the new events better, had the live release had them.

    The mixture and the lean of the prototypes go half way, for one week is not like the next; the pull of what somebody had already needs
    no such caution, for habits stay. new (N,) bool says which events are asked, none of which `live` may have learned. Where it is the
    rule not to recommend what a person had (serving.exclude_seen), that is not asked either.
    """
    settings = candidate.settings.serving
    known = replace(sessions, item=np.where(sessions.item < len(live.vocab), sessions.item, 0))
    asked = new & known.positive & (known.item > 0)
    if settings.exclude_seen:
        asked &= ~repeats(sessions)
    at = np.flatnonzero(asked)
    past = histories(known, at, 1)
    at = at[np.diff(past.start) > 0]  # who has no history is shown what is popular
    if not len(at):
        return _with_weights_of(live, candidate)
    most = min(QUESTIONS, max(1, CELLS // len(live.vocab)))
    at = np.sort(np.random.default_rng(seed).permutation(at)[:most])
    past = histories(known, at, live.settings.serving.profile_events)
    hidden, target, had = past.pairs() if settings.exclude_seen else None, known.item[at], again.returns(past)
    own, found_at = live.vectors()
    leaning = [fusion.gains_of(live.alone(past, (own, live.prototypes.of(own, lean)), hidden), target).mean() for lean in LEANS]
    best = live.prototypes.halfway(LEANS[int(np.argmax(leaning))]) if max(leaning) > min(leaning) else live.prototypes.lean

    logits, votes, share = live.logits(past, (own, found_at), hidden), live.votes(past, known.time[at], hidden), live.counts.share()
    length = np.diff(past.start)
    mixture = fusion.learned(live.fusion, logits, votes, share, length, target, live.again.factors(had))
    returning = live.again
    if not settings.exclude_seen:
        alone, fused = np.zeros(len(again.TRIED)), np.zeros(len(again.TRIED))
        for part in blocks(len(at)):
            some = Returns(*part_of((had.query, had.item, had.place), part))
            alone += again.gains(logits[part], some, target[part])
            mixed = fusion.mix(logits[part].copy(), part_of(votes, part), share, live.fusion.of(length[part]))
            fused += again.gains(np.log(mixed, out=np.full_like(mixed, -np.inf), where=mixed > 0), some, target[part])
        returning = live.again.learned(alone, fused, len(at))
    return replace(candidate, fusion=mixture, again=returning, prototypes=replace(candidate.prototypes, lean=best))


def _with_weights_of(live: Candidate, candidate: Candidate) -> Candidate:
    lean = live.prototypes.lean
    return replace(candidate, fusion=live.fusion, again=live.again, prototypes=replace(candidate.prototypes, lean=lean))
