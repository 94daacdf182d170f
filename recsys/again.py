"""What somebody had already, once more: how much likelier it is, by how far back it lies. No torch here.

A model of repeats beside the model of taste, as in RepeatNet (Ren et al., AAAI 2019), of three numbers. Whoever compares two goods goes
from one to the other and back; a score of taste, which knows what is like what, cannot say that.
"""

import json
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from recsys.errors import ReleaseDamaged
from recsys.events import IS_POSITIVE
from recsys.files import write_atomically
from recsys.sessions import Histories

FILE = "again.json"
PLACES = 3
"""What the newest event of a history was about, the one before it, and all earlier ones."""

STEPS = np.array([0.0, 1.0, -1.0, 2.0, -2.0, 4.0, -4.0])
"""What is tried for each place, added to the log of a score; of equals the first is taken."""

TRIED = STEPS[np.array(sorted(product(range(len(STEPS)), repeat=PLACES), key=sum))]
"""All combinations, (343, 3), the mildest first."""

FADING = 0.7
"""What is left of the weight of a measurement after 2000 further questions."""

_STEP = np.array([[np.flatnonzero(step == STEPS)[0] for step in tried] for tried in TRIED])


@dataclass(frozen=True)
class Returns:
    """The items that somebody liked and had already: query (R,), item (R,) and place (R,) from 0, the newest; each pair once."""

    query: np.ndarray
    item: np.ndarray
    place: np.ndarray


def returns(past: Histories) -> Returns:
    """List what each history holds, by how many events lie behind the newest on it; what that one says no to is left out."""
    query = np.repeat(np.arange(len(past)), np.diff(past.start))
    order = np.lexsort((np.arange(len(query)), past.item, query))
    another = (np.diff(query[order]) != 0) | (np.diff(past.item[order]) != 0)
    newest = order[np.append(another, True)[: len(order)]]
    newest = newest[IS_POSITIVE[past.kind[newest]] & (past.item[newest] > 0)]
    back = past.start[1:][query[newest]] - 1 - newest
    return Returns(query[newest], past.item[newest], np.minimum(back, PLACES - 1))


@dataclass(frozen=True)
class Again:
    """What is added to the log of the score of what somebody had already, by place: towers (3,) where they answer alone, fused (3,).

    quality (2, 343): ndcg@20 under each of TRIED for the two, a fading sum over the updates so far, and of how many questions, `asked`.
    """

    towers: np.ndarray
    fused: np.ndarray
    quality: np.ndarray
    asked: float

    @classmethod
    def start(cls) -> "Again":
        """Return what adds nothing: nothing was measured yet."""
        return cls(np.zeros(PLACES), np.zeros(PLACES), np.zeros((2, len(TRIED))), 0.0)

    def factors(self, had: Returns) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return query, item and what the fused score of each is multiplied by, (R,)."""
        return had.query, had.item, np.exp(self.fused[had.place])

    def learned(self, towers: np.ndarray, fused: np.ndarray, questions: int) -> "Again":
        """Return what would have served best, measured anew and before: the gains of both under each of TRIED, (343,), over all questions.

        What was measured before fades with the questions, not with the updates: many small updates remember as much as a large one. The
        best of so many flatters itself, so it must be ahead of nothing at all by more than luck.
        """
        kept = FADING ** (questions / 2000)
        asked = kept * self.asked + questions
        quality = kept * self.quality + np.stack([towers, fused])
        worth = quality.copy()
        worth[:, 0] += 2 + 0.1 * np.sqrt(asked)
        best = TRIED[worth.argmax(axis=1)]
        return Again(best[0], best[1], quality, asked)

    def write(self, folder: Path) -> None:
        """Write the numbers, and what they were chosen by, into a release's folder."""
        write_atomically(folder / FILE, json.dumps({name: np.round(value, 6).tolist() for name, value in vars(self).items()}))

    @classmethod
    def read(cls, folder: Path) -> "Again":
        """Read what `write` wrote; raise ReleaseDamaged where that is something else."""
        try:
            about = json.loads((folder / FILE).read_text())
            towers, fused, quality = (np.array(about[name], np.float64) for name in ("towers", "fused", "quality"))
            found = cls(towers, fused, quality, float(about["asked"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ReleaseDamaged(f"{folder / FILE} cannot be read ({error}); roll back with: recsys rollback") from None
        if (found.towers.shape, found.fused.shape, found.quality.shape) != ((PLACES,), (PLACES,), (2, len(TRIED))):
            raise ReleaseDamaged(f"{folder / FILE} does not hold {PLACES} places; roll back with: recsys rollback")
        return found


def gains(logs: np.ndarray, had: Returns, target: np.ndarray) -> np.ndarray:
    """Return the ndcg@20 of all questions together under each of TRIED, (343,), ties against us: logs (B, n) of scores, target (B,)."""
    row, width = np.arange(len(logs)), int(np.bincount(had.query, minlength=1).max(initial=0))
    own, place = np.full((len(logs), width), -np.inf), np.zeros((len(logs), width), np.int64)
    column = np.arange(len(had.query)) - np.searchsorted(had.query, had.query)
    own[had.query, column], place[had.query, column] = logs[had.query, had.item], had.place
    back = np.full(len(logs), -1)  # the place of the target
    is_target = had.item == target[had.query]
    back[had.query[is_target]] = had.place[is_target]
    others = logs.copy()
    others[had.query, had.item] = -np.inf

    limit = logs[row, target][:, None] + np.where(back[:, None] >= 0, STEPS, 0.0)  # (B, steps of the target's place)
    ahead = np.stack([np.count_nonzero(others >= at[:, None], axis=1) for at in limit.T], axis=1)
    mine = own[:, None, None, :] + STEPS[None, None, :, None] >= limit[:, :, None, None]  # (B, its step, their step, width)
    by_place = np.stack([np.count_nonzero(mine & (place == p)[:, None, None, :], axis=3) for p in range(PLACES)], axis=1)
    total = np.zeros(len(TRIED))
    for number, step in enumerate(_STEP):
        its = np.where(back >= 0, step[np.maximum(back, 0)], 0)
        rank = ahead[row, its] + sum(by_place[row, p, its, step[p]] for p in range(PLACES))
        total[number] = np.where((rank <= 20) & np.isfinite(limit[:, 0]), 1 / np.log2(1 + np.maximum(rank, 1)), 0.0).sum()
    return total
