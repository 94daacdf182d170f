"""Whether a candidate may take the place of the live release: it must not be surely worse anywhere that counts.

Both answer the same questions: the newest events, which the candidate has not learned, and a fixed sample of what was learned long ago. A
difference counts where its bootstrap interval over people lies below what is allowed, so a small log refuses little, and says so.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import torch

from eval import metrics
from eval.intervals import paired
from eval.timeline import CELLS
from recsys.batches import Examples, batch
from recsys.events import counted, positive
from recsys.sessions import Histories, Sessions, histories, repeats, sessionise
from recsys.settings import GateSettings
from training.candidate import Candidate

K = 20
"""The length of the lists that are compared."""

SHOWN = 0.1
"""An item in so many lists is looked at: who stands behind it?"""


@dataclass(frozen=True)
class Verdict:
    """What the gate says: it refuses for any reason. figures: what was measured; notes: what could not be judged."""

    reasons: list[str] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def accepted(self) -> bool:
        return not self.reasons

    def as_dict(self) -> dict[str, object]:
        return {"accepted": self.accepted, "reasons": self.reasons, "notes": self.notes, "figures": self.figures}


@dataclass(frozen=True)
class Exam:
    """Questions about the newest events: whose history, as of now (Q,) ms, and the item that came, a row of the candidate's vocabulary.

    owner (Q,): whose question it is; events (n,): how often each item was liked of late, and by how many people (n,).
    """

    past: Histories
    now: np.ndarray
    target: np.ndarray
    owner: np.ndarray
    events: np.ndarray
    people: np.ndarray

    def __len__(self) -> int:
        return len(self.now)


def judge(candidate: Candidate, live: Candidate, before: pa.Table, learned: pa.Table, held_back: pa.Table) -> Verdict:
    """Compare a candidate with the live release.

    before: earlier events of the people in the other two; learned: what the candidate learned and live did not; held_back: newer events,
    which neither has seen.
    """
    settings = candidate.settings.gate
    exam = _exam(candidate, before, learned, held_back, settings)
    verdict = Verdict()
    _of_the_newest(exam, candidate, live, settings, verdict)
    _of_the_memory(candidate, live, settings, verdict)
    return verdict


def _of_the_newest(exam: Exam, candidate: Candidate, live: Candidate, settings: GateSettings, verdict: Verdict) -> None:
    if len(exam) < settings.few:
        verdict.notes.append(f"only {len(exam)} questions about the newest events, too few to judge by (gate.few = {settings.few})")
        return
    (now, shown), (then, shown_before) = (_foretold(one, exam) for one in (candidate, live))
    verdict.figures.update({"questions": len(exam), f"ndcg@{K}": _mean(now), f"ndcg@{K} live": _mean(then)})
    _compare("the newest events", now, then, exam.owner, "worse", settings.worse, settings, verdict)
    length, new = np.diff(exam.past.start), exam.target >= len(live.vocab)
    parts = {"people without a history": length == 0, "short histories": (length > 0) & (length <= 5), "long histories": length > 5}
    for name, part in (parts | {"new items": new, "known items": ~new}).items():
        if part.sum() >= settings.few:
            _compare(name, now[part], then[part], exam.owner[part], "slices", settings.slices, settings, verdict)
    covered, before = (len(np.unique(lists[lists > 0])) for lists in (shown, shown_before))
    verdict.figures.update({f"shown items@{K}": covered, f"shown items@{K} live": before})
    if covered < settings.coverage * before:
        verdict.reasons.append(
            f"the lists hold {covered:,} different items, those of the live release {before:,} (gate.coverage = {settings.coverage:g})"
        )
    _pushed(exam, candidate, shown, shown_before, settings, verdict)
    _declined(now, exam.owner, live, settings, verdict)


def _of_the_memory(candidate: Candidate, live: Candidate, settings: GateSettings, verdict: Verdict) -> None:
    oldest = np.argsort(live.memory.keys, kind="stable")[: settings.questions]  # the same from update to update
    some = live.memory.examples.take(oldest)
    some = some.take(np.flatnonzero(some.weight[some.start[1:] - 1] > 0)) if len(some) else some
    if len(some) < settings.few:
        verdict.notes.append(f"only {len(some)} remembered examples, too few to judge by (gate.few = {settings.few})")
        return
    now, then = (_remembered(one, some, len(live.vocab)) for one in (candidate, live))
    verdict.figures.update({f"memory ndcg@{K}": _mean(now), f"memory ndcg@{K} live": _mean(then)})
    _compare("what was learned before", now, then, np.arange(len(some)), "forgets", settings.forgets, settings, verdict)


def _compare(
    what: str,
    now: np.ndarray,
    then: np.ndarray,
    owner: np.ndarray,
    name: str,
    allowed: float,
    settings: GateSettings,
    verdict: Verdict,
) -> None:
    mean, _, high = (float(value) for value in paired([now - then], [owner], resamples=settings.resamples))
    if high < -allowed * _mean(then):
        share = -mean / max(_mean(then), 1e-12)
        verdict.reasons.append(
            f"{what}: ndcg@{K} {_mean(now):.4f}, {share:.0%} less than the {_mean(then):.4f} of the live release "
            f"({len(now):,} questions; gate.{name} = {allowed:g})"
        )


def _pushed(
    exam: Exam, candidate: Candidate, shown: np.ndarray, shown_before: np.ndarray, settings: GateSettings, verdict: Verdict
) -> None:
    """Refuse where an item comes to many that few people have played over and over: real ones do not behave like that."""
    last = len(exam) - 1 - np.unique(exam.owner[::-1], return_index=True)[1]  # the newest question of each person
    n = len(candidate.vocab)
    share, before = (np.bincount(lists[last].ravel(), minlength=n)[:n] / len(last) for lists in (shown, shown_before))
    pushed = (share > SHOWN) & (share > 2 * before) & (exam.events > settings.pushed * exam.people)
    pushed[0] = False
    for row in np.flatnonzero(pushed)[np.argsort(-share[pushed])][:3].tolist():
        verdict.reasons.append(
            f"item {candidate.vocab.ids[row]!r} would be shown to {share[row]:.0%} of the people (now {before[row]:.0%}) "
            f"for {exam.events[row]:,} events of {exam.people[row]:,} people (gate.pushed = {settings.pushed:g})"
        )


def _declined(now: np.ndarray, owner: np.ndarray, live: Candidate, settings: GateSettings, verdict: Verdict) -> None:
    """Refuse where the newest events are foretold far worse than those of the last update were, though most of them were learned.

    Of the live release that would mean little: it may be old. Of the candidate it means that what came in cannot be learned.
    """
    was = live.parent.manifest.get("foretold") if live.parent else None
    if was is None:
        verdict.notes.append("no update was judged before this one, so nobody knows how well the newest events should be foretold")
        return
    _, _, high = (float(value) for value in paired([now], [owner], resamples=settings.resamples))
    if high < settings.decline * was:
        verdict.reasons.append(
            f"the newest events are foretold by ndcg@{K} {_mean(now):.4f}, those of the last update were by {was:.4f}; "
            f"look whether something is wrong with the log (gate.decline = {settings.decline:g})"
        )


def _exam(candidate: Candidate, before: pa.Table, learned: pa.Table, held_back: pa.Table, settings: GateSettings) -> Exam:
    """Ask for every liked item of the newest events that the candidate knows, at most `gate.questions`, the same at every call."""
    own = candidate.settings
    told = counted(pa.concat_tables([before, learned, held_back]), positive(own.data.positive))
    sessions = sessionise(told, candidate.vocab, own.data.session_gap)
    late = sessions.place >= len(before)
    newest = sessions.place >= len(before) + len(learned)
    at = np.flatnonzero(newest & sessions.positive & (sessions.item > 0))
    if own.serving.exclude_seen:
        at = at[~repeats(sessions)[at]]
    if len(at) > settings.questions:
        at = np.sort(np.random.default_rng(0).choice(at, settings.questions, replace=False))
    past = histories(sessions, at, limit=len(sessions))
    return Exam(past, sessions.time[at], sessions.item[at], sessions.owner[at], *_behind(sessions, late, len(candidate.vocab)))


def _behind(sessions: Sessions, late: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """Return how many events of late liked each item, and of how many people, (n,) each."""
    liked = late & sessions.positive & (sessions.item > 0)
    events = np.bincount(sessions.item[liked], minlength=n)
    pairs = np.unique(np.stack([sessions.owner[liked], sessions.item[liked]]), axis=1)
    return events, np.bincount(pairs[1], minlength=n)


def _foretold(candidate: Candidate, exam: Exam) -> tuple[np.ndarray, np.ndarray]:
    """Return how well a release foretells each item, ndcg@K (Q,), and the lists that it would have shown, (Q, K)."""
    n, vectors = len(candidate.vocab), candidate.vectors()
    past = exam.past.where(exam.past.item < n)
    gains, shown, size = np.zeros(len(exam)), np.zeros((len(exam), K), np.int64), int(np.clip(CELLS // n, 1, 512))
    for first in range(0, len(exam), size):
        part = slice(first, min(first + size, len(exam)))
        some, target = past[part], exam.target[part]
        hidden = some.pairs() if candidate.settings.serving.exclude_seen else None
        scores = candidate.served(some, exam.now[part], vectors, hidden)
        shown[part] = metrics.top(scores, K)
        gains[part] = _gains(scores, target)
    return gains, shown


@torch.inference_mode()
def _remembered(candidate: Candidate, some: Examples, n: int) -> np.ndarray:
    """Return how well the towers foretell the last item of each example by taste alone, among the first `n` rows: ndcg@K (E,)."""
    vectors, found_at = candidate.vectors()
    table, gains = torch.from_numpy(vectors), np.zeros(len(some))
    size = int(np.clip(CELLS // n, 1, 512))
    for first in range(0, len(some), size):
        part = some.take(np.arange(first, min(first + size, len(some))))
        asked = batch(part)
        lengths = torch.from_numpy(part.lengths - 1)
        where = torch.from_numpy(part.surface[part.start[1:] - 1].astype(np.int64))
        people = candidate.towers.users.last(table[asked.item], asked.kind, asked.gap, lengths, where).numpy()
        scores = people @ found_at[:n].T
        scores[:, 0] = -np.inf
        gains[first : first + len(part)] = _gains(scores, part.item[part.start[1:] - 1])
    return gains


def _gains(scores: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the ndcg@K of one wanted row each, (B,): 0 for a row that the scores (B, n) do not have."""
    known = target < scores.shape[1]
    ranks = metrics.ranks(scores, np.arange(len(target) + 1), np.where(known, target, 0))
    return np.where(known & (ranks <= K), 1 / np.log2(1 + np.minimum(ranks, K)), 0.0)


def _mean(values: np.ndarray | Sequence[float]) -> float:
    return float(np.mean(values)) if len(values) else 0.0
