"""How far an update moved things, from the files of a release and of its parent: item vectors, and what is popular."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys.registry import Release

SAMPLE = 20_000
"""Items whose vectors are compared at most, evenly spread over the vocabulary."""

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95)

RISERS = 5
"""Items that are named of those that gained most, and of those that lost most."""


def moved(release: Release, parent: Release) -> dict[str, Any]:
    """Compare a release with its parent.

    vectors: of the items that both know, quantiles of the cosine between the two vectors of each, and the share that is the same to the
    last bit; None after a retrain, whose space is another. popularity: half of what all items' shares of what is watched differ by, which
    is the part of it that went to other items; new: the part that new items have.
    """
    now, then = (pq.read_table(one.file("items.parquet"), columns=["item_id", "count", "title"]) for one in (release, parent))
    at = pc.index_in(now["item_id"].combine_chunks(), value_set=then["item_id"].combine_chunks())
    known = pc.is_valid(at).to_numpy(zero_copy_only=False)
    was = pc.fill_null(at, 0).to_numpy(zero_copy_only=False).astype(np.int64)
    anew = release.manifest.get("number", 1) == 0
    return {
        "items": len(now),
        "new": int((~known).sum()),
        "gone": len(then) - int(known.sum()),
        "anew": anew,
        "vectors": None if anew else _vectors(release, parent, np.flatnonzero(known), was),
        "popularity": _popularity(now, then, known, was),
    }


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the cosine of each row with the other's, (n, d), (n, d) -> (n,); nan where one of them is all zeros."""
    length = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.where(length > 0, (a * b).sum(axis=1) / np.maximum(length, 1e-12), np.nan)


def _vectors(release: Release, parent: Release, rows: np.ndarray, was: np.ndarray) -> dict[str, Any] | None:
    """Compare the vectors of items; rows (R,) places in the release, from 0, and was (n,) those in its parent."""
    if len(rows) > SAMPLE:
        rows = rows[np.linspace(0, len(rows) - 1, SAMPLE).astype(np.int64)]
    new, old = (np.load(one.file("vectors.npy"), mmap_mode="r") for one in (release, parent))
    if not len(rows) or new.shape[1] != old.shape[1]:
        return None
    a, b = np.asarray(new[1 + rows], np.float32), np.asarray(old[1 + was[rows]], np.float32)
    cosine = np.nan_to_num(cosines(a, b), nan=1.0)
    return {
        "compared": len(rows),
        "quantiles": dict(zip(map(str, QUANTILES), np.quantile(cosine, QUANTILES).round(5).tolist(), strict=True)),
        "same": float((a == b).all(axis=1).mean()),
    }


def _popularity(now: pa.Table, then: pa.Table, known: np.ndarray, was: np.ndarray) -> dict[str, Any]:
    share, before = (_shares(table) for table in (now, then))
    then_here = np.where(known, before[was] if len(before) else 0.0, 0.0)
    gained = share - then_here
    lost = max(0.0, float(before.sum() - then_here.sum()))  # what items had that are gone
    order = np.argsort(gained, kind="stable")

    def named(places: np.ndarray) -> list[dict[str, Any]]:
        ids, titles = (now[column].take(pa.array(places)).to_pylist() for column in ("item_id", "title"))
        figures = zip(ids, titles, then_here[places].tolist(), share[places].tolist(), strict=True)
        return [{"item_id": id, "title": title or "", "from": old, "to": new} for id, title, old, new in figures]

    return {
        "moved": float((np.abs(gained).sum() + lost) / 2),
        "new": float(share[~known].sum()),
        "up": named(np.array([place for place in order[::-1][:RISERS] if gained[place] > 0], np.int64)),
        "down": named(np.array([place for place in order[:RISERS] if gained[place] < 0], np.int64)),
    }


def _shares(table: pa.Table) -> np.ndarray:
    count = np.nan_to_num(table["count"].to_numpy().astype(np.float64))
    return count / max(float(count.sum()), 1e-12)
