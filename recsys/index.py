"""Item vectors in FAISS: exact for small catalogues, IVF with fp16 codes above; it knows the towers that made it."""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numba import njit
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from recsys.errors import ReleaseDamaged
from recsys.files import write_atomically, write_beside

FILE, ABOUT, HEAD = "items.faiss", "index.json", "head.safetensors"

POPULAR = 512
"""So many items of the highest bias are compared with every question: they may win wherever their taste lies."""

QUESTIONS = 200
"""Questions that the recall of an index is measured by."""

LEARNED = 64
"""So many items per list are enough to place its centre."""

K, WIDTH = 100, 8


@dataclass(frozen=True)
class ItemIndex:
    """Inner-product search over the vectors of rows 1..n; the ids it answers with are vocabulary rows.

    What a score starts from, whoever asks (the item's popularity), is one more dimension that every question meets with 1. It is counted
    from `start`, what an item has that nobody watches: most of a large catalogue, which then stays as it is from release to release. Lists
    of an IVF are of like taste alone, whatever is popular in them, and so are those that a question looks into; head (H,) rows and their
    table, the most popular, are looked at beside them.
    """

    faiss: Any
    towers: str
    recall: float
    start: float
    head: np.ndarray
    table: np.ndarray

    @classmethod
    def build(
        cls,
        vectors: np.ndarray,
        bias: np.ndarray,
        towers: str,
        exact_below: int,
        min_recall: float,
        parent: "ItemIndex | None" = None,
        askers: np.ndarray | None = None,
    ) -> "ItemIndex":
        """Index vectors (n + 1, d) with their bias (n + 1,); row 0 is the unknown item, and its bias what nobody watches has.

        A parent's lists are kept, and of them what did not change, while recall@100 stays at `min_recall` or better; else everything is
        made anew. askers (Q, d): user vectors that this is measured by, the first of the items' own where there are none.
        """
        start = float(bias[0])
        table = _with_column(vectors, bias - start)
        if len(table) <= exact_below:
            return cls(_exact(table), towers, 1.0, start, np.zeros(0, np.int64), table[:0])
        head = np.sort(1 + np.argsort(-bias[1:], kind="stable")[:POPULAR])
        made = partial(cls, towers=towers, start=start, head=head, table=table[head])
        exam = Exam.of(vectors, bias, askers)
        if parent is not None and (kept := _refilled(parent.faiss, table)) is not None:
            recall = exam.recall(made(kept, recall=0.0))
            if recall >= min_recall:
                return made(kept, recall=recall)
        index = _ivf(table, _with_column(vectors[1:], 0.0))
        while (recall := exam.recall(made(index, recall=0.0))) < min_recall and index.nprobe < index.nlist:
            index.nprobe = min(index.nlist, index.nprobe + max(1, index.nprobe // 2))  # as few lists as min_recall allows
        return made(index, recall=recall)

    def __len__(self) -> int:
        return self.faiss.ntotal

    def search(self, queries: np.ndarray, k: int, biased: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """Return the scores and rows of the best `k` items, (B, k) each, best first; row -1 where there are fewer.

        queries (B, d) L2-normalised; without `biased` the scores are plain inner products.
        """
        k = max(1, min(k, len(self)))
        queries = _with_column(queries, float(biased))
        scores, rows = self.faiss.search(queries, k)
        if biased and len(self.head):
            scores, rows = self._with_head(queries, scores, rows)
        return (scores + np.float32(self.start), rows) if biased else (scores, rows)

    def write(self, folder: Path) -> None:
        """Write the index and, beside it, which towers it belongs to."""
        try:
            faiss.write_index(self.faiss, str(folder / FILE))
        except RuntimeError as error:  # a full disk, which is an OSError to everybody else
            raise OSError(f"{folder / FILE} cannot be written: {error}") from None
        write_beside(folder / HEAD, lambda beside: save_file({"rows": self.head, "table": self.table}, beside))
        about = {
            "towers": self.towers,
            "items": len(self),
            "start": self.start,
            "recall@100": round(self.recall, 4),
            "kind": type(self.faiss).__name__,
        }
        write_atomically(folder / ABOUT, json.dumps(about))

    @classmethod
    def read(cls, folder: Path, towers: str, mapped: bool = False) -> "ItemIndex":
        """Read an index that `towers` made; an index of other towers is refused with ReleaseDamaged.

        mapped: leave it in its file, so that processes share it; such an index can be searched and nothing else.
        """
        try:
            about, head = json.loads((folder / ABOUT).read_text()), load_file(folder / HEAD)
            made_by, recall, start, rows, table = about["towers"], about["recall@100"], about["start"], head["rows"], head["table"]
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise ReleaseDamaged(f"{folder / ABOUT} cannot be read ({error}); roll back with: recsys rollback") from None
        if made_by != towers:
            raise ReleaseDamaged(
                f"{folder / FILE} was built by towers {made_by[:12]}, not by {towers[:12]}; roll back with: recsys rollback"
            )
        index = faiss.read_index(str(folder / FILE), faiss.IO_FLAG_MMAP_IFC if mapped else 0)
        return cls(index, towers, recall, start, rows, table)

    def _with_head(self, queries: np.ndarray, scores: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Put those of the most popular items that belong there into what the lists gave."""
        return joined(scores, rows, queries @ self.table.T, self.head)


@njit(cache=True, nogil=True)
def joined(scores, rows, popular, head):  # type: ignore
    """Join two lists for each query: scores and rows (B, k), best first, and those of the rows `head` (H,), ascending, popular (B, H)."""
    wide, high = rows.shape[1], len(head)
    best, found = np.full(scores.shape, -np.inf, np.float32), np.full(rows.shape, -1, np.int64)
    score, row = np.empty(wide + high, np.float32), np.empty(wide + high, np.int64)
    for query in range(len(rows)):
        count = 0
        for at in range(wide):
            one = rows[query, at]
            place = np.searchsorted(head, one)
            if one >= 0 and (place == high or head[place] != one):  # what is popular comes with the others
                score[count], row[count] = -scores[query, at], one
                count += 1
        for at in range(high):
            if popular[query, at] >= scores[query, wide - 1]:
                score[count], row[count] = -popular[query, at], head[at]
                count += 1
        order = np.argsort(score[:count], kind="mergesort")
        for at in range(min(count, wide)):
            best[query, at], found[query, at] = -score[order[at]], row[order[at]]
    return best, found


@dataclass(frozen=True)
class Exam:
    """Questions (Q, d) and the 100 items that answer each best, (Q, 100)."""

    questions: np.ndarray
    truth: np.ndarray

    @classmethod
    def of(cls, vectors: np.ndarray, bias: np.ndarray, askers: np.ndarray | None = None, n: int = QUESTIONS) -> "Exam":
        """Ask all items exactly: `n` user vectors, items' own in place of those that are missing."""
        asked = vectors[:0] if askers is None else askers[:n].astype(np.float32)
        own = np.random.default_rng(0).permutation(len(vectors) - 1)[: n - len(asked)]
        asked = np.concatenate([asked, vectors[1 + own]])
        return cls(asked, _best(asked, vectors, bias.astype(np.float32), min(K, len(vectors) - 1)))

    def recall(self, index: ItemIndex) -> float:
        """Return the share of the best 100 that an index finds."""
        found = index.search(self.questions, self.truth.shape[1])[1]
        return float(np.mean([np.isin(true, those).mean() for true, those in zip(self.truth, found, strict=True)]))


def _with_column(rows: np.ndarray, more: np.ndarray | float) -> np.ndarray:
    """Put a number behind each row, and zeros until the length suits the processor: a multiple of 8 is searched several times as fast."""
    n, width = rows.shape
    table = np.zeros((n, -(-(width + 1) // WIDTH) * WIDTH), np.float32)
    table[:, :width], table[:, width] = rows, more
    return table


def _best(queries: np.ndarray, vectors: np.ndarray, bias: np.ndarray, k: int, block: int = 2**16) -> np.ndarray:
    """Return the rows of the best `k` items of each query, (Q, k), in any order: all are compared, and few of a block are looked at."""
    scores, rows = np.full((len(queries), k), -np.inf, np.float32), np.zeros((len(queries), k), np.int64)
    for first in range(1, len(vectors), block):
        some = queries @ vectors[first : first + block].T + bias[first : first + block]
        for query, least in enumerate(scores.min(axis=1).tolist()):
            better = np.flatnonzero(some[query] > least)
            score = np.concatenate([scores[query], some[query, better]])
            best = np.argpartition(score, len(score) - k)[len(score) - k :]
            scores[query], rows[query] = score[best], np.concatenate([rows[query], first + better])[best]
    return rows


def _rows(table: np.ndarray) -> np.ndarray:
    return np.arange(1, len(table), dtype=np.int64)


def _exact(table: np.ndarray) -> Any:
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(table.shape[1]))
    index.add_with_ids(table[1:], _rows(table))
    return index


def _ivf(table: np.ndarray, taste: np.ndarray) -> Any:
    index: Any = faiss.index_factory(table.shape[1], f"IVF{_lists(len(table))},SQfp16", faiss.METRIC_INNER_PRODUCT)
    index.cp.seed, index.cp.spherical, index.cp.max_points_per_centroid = 0, True, LEARNED
    index.by_residual = False  # so that a code says by itself what it is
    index.train(taste)  # no centre has any popularity, and neither items nor questions choose their lists by it
    index.add_with_ids(table[1:], _rows(table))
    return index


def _lists(n: int) -> int:
    """Return how many lists so many items are kept in."""
    return max(1, min(int(4 * np.sqrt(n)), n // 39))  # of fewer items k-means makes no good list


def _refilled(parent: Any, table: np.ndarray) -> Any:
    """Return a parent's index with the items of now: only what has changed, to the last bit of its code, is written anew.

    None where its lists are of another kind, or far fewer than so many items want.
    """
    if not isinstance(parent, faiss.IndexIVF) or parent.d != table.shape[1] or 2 * parent.nlist < _lists(len(table)):
        return None
    index: Any = faiss.clone_index(parent)
    ids, held = _contents(index)
    codes = index.sq.compute_codes(table[1:]).view(np.uint16)
    stays = np.zeros(len(table), bool)
    here = np.flatnonzero(ids < len(table))
    stays[ids[here]] = (codes[ids[here] - 1] == held[here]).all(axis=1)
    if np.count_nonzero(stays) < len(table) / 2:
        index.reset()
        stays[:] = False
    elif len(gone := ids[(ids >= len(table)) | ~stays[np.minimum(ids, len(table) - 1)]]):
        index.remove_ids(faiss.IDSelectorBatch(gone))
    come = 1 + np.flatnonzero(~stays[1:])
    if len(come):
        index.add_with_ids(table[come], come)
    return index


def _contents(index: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the ids in an IVF's lists, (N,), and their codes, (N, d) uint16."""
    lists, size = index.invlists, index.code_size
    filled = [number for number in range(index.nlist) if lists.list_size(number)]
    count = [lists.list_size(number) for number in filled]
    ids = [faiss.rev_swig_ptr(lists.get_ids(number), n).copy() for number, n in zip(filled, count, strict=True)]
    codes = [faiss.rev_swig_ptr(lists.get_codes(number), n * size).copy() for number, n in zip(filled, count, strict=True)]
    return np.concatenate([np.zeros(0, np.int64), *ids]), np.concatenate([np.zeros(0, np.uint8), *codes]).reshape(-1, size).view(np.uint16)
