"""What counts as "more of this" is an expression in the configuration, and holds alike in training, evaluation and serving."""

import asyncio
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_api import event, ids, served
from worlds import publish_release

from eval.command import Question
from recsys.errors import BadInput
from recsys.events import CODE, EVENT_TYPES, EVERYTHING, SCHEMA, counted, positive
from recsys.progress import silent
from recsys.settings import load_settings
from serving.embedded import EmbeddedRedis
from serving.history import Event
from serving.profiles import Profiles
from serving.wire import Wire
from training.fit import fit
from training.update import update

RULE = "play, watch >= 0.5, like"
NOW = 1_700_000_000_000
TOLD = [  # type, value, and whether it stays
    ("play", None, True), ("play", 0.1, True), ("watch", None, True), ("watch", 0.5, True), ("watch", 0.49, False), ("like", None, True),
    ("click", None, False), ("complete", 1.0, False), ("add_to_list", None, False), ("dislike", None, True), ("skip", 0.0, True),
    ("impression", 0.3, True), ("undo", None, True),
]  # fmt: skip


def table(rows: list[dict]) -> pa.Table:
    rows = [{"event_id": str(n), "user_id": "ann", "timestamp": NOW + n * 1000, **row} for n, row in enumerate(rows)]
    return pa.table({f.name: pa.array([row.get(f.name) for row in rows]).cast(f.type) for f in SCHEMA}, schema=SCHEMA)


def test_what_does_not_count_becomes_an_impression_and_the_rest_stays() -> None:
    given = table([{"item_id": f"i{n}", "event_type": kind, "value": value} for n, (kind, value, _) in enumerate(TOLD)])
    found = counted(given, positive(RULE))
    assert found["event_type"].to_pylist() == [kind if stays else "impression" for kind, _, stays in TOLD]
    assert found.drop_columns("event_type").equals(given.drop_columns("event_type"))
    assert found.schema == given.schema
    assert counted(given, EVERYTHING) is given
    assert positive(load_settings(environ={}).data.positive) == EVERYTHING


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("plai", "data.positive = 'plai': 'plai' cannot count as positive; did you mean 'play'?"),
        ("dislike", "'dislike' cannot count as positive; "),
        ("", "'' cannot count as positive; "),
        ("play, watch >= much", "'watch >= much': write it like watch >= 0.5"),
        ("watch > 0.5", "'watch > 0.5' cannot count as positive; write it like watch >= 0.5"),
        ("watch >= 7", "'watch >= 7': write it like watch >= 0.5, a share from 0 to 1"),
        ("watch >= nan", "a share from 0 to 1"),
        ("like, like >= 0.9", "'like' stands there twice"),
    ],
)
def test_a_mistake_is_named(text: str, told: str) -> None:
    with pytest.raises(BadInput) as caught:
        load_settings(environ={}, overrides={"data.positive": text})
    assert told in str(caught.value)


def test_training_and_evaluation_learn_from_what_counts_alone(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for user in range(30):
        for n in range(8):
            kind = ("play", "click", "watch")[int(rng.integers(3))]
            value = float(rng.choice([0.25, 0.75]))
            about = {"user_id": f"u{user}", "item_id": f"{kind}{value}-{rng.integers(5)}", "event_type": kind, "value": value}
            rows.append({**about, "event_id": f"{user}-{n}", "timestamp": NOW + user * 60_000 + n * 1000})
    log = table(rows)
    small = {"model.dim": 8, "training.epochs": 1, "update.epochs": 1, "training.negatives": 16}
    strict = load_settings(environ={}, overrides={**small, "data.positive": "play, watch >= 0.5"})
    made = fit(log.slice(0, 160), strict, {})
    kept = {row["item_id"] for row in rows[:160] if row["event_type"] == "play" or (row["event_type"] == "watch" and row["value"] > 0.5)}
    assert set(made.vocab.ids[1:]) == kept
    assert made.kinds[CODE["click"]] == 0
    later = update(made, log.slice(160), log.slice(0, 160), strict, {})
    assert not any(id.startswith(("click", "watch0.25")) for id in later.vocab.ids)
    assert len(later.vocab) >= len(made.vocab)

    file = tmp_path / "log.parquet"
    pq.write_table(log, file)
    question = Question("prequential", (file,), (), None, 600.0, 1, None, "popular", (10,), True, False, 1, False, strict)
    assert question.plan(silent).timeline.sessions.positive.sum() == sum(
        row["event_type"] == "play" or (row["event_type"] == "watch" and row["value"] > 0.5) for row in rows
    )


def test_a_profile_is_read_by_the_same_rule(tmp_path: Path) -> None:
    told = [Event(f"i{n}", kind, NOW + n, f"e{n}", "ann", value=value) for n, (kind, value, _) in enumerate(TOLD)]

    async def read(url: str, rule: str) -> list[str]:
        wire = Wire(url)
        people = Profiles(wire, "t", counts=positive(rule))
        await people.merge(told)
        history = await people.read("ann")
        wire.close()
        return [EVENT_TYPES[kind] for kind in history.kinds]

    with EmbeddedRedis(tmp_path) as server:
        kept = [kind for kind, _, stays in TOLD if stays and kind not in ("impression", "undo")]
        assert asyncio.run(read(server.url, RULE)) == kept
        assert len(asyncio.run(read(server.url, ", ".join(EVERYTHING)))) == sum(kind not in ("impression", "undo") for kind, _, _ in TOLD)
        assert asyncio.run(read(server.url, "add_to_list >= 1")) == ["add_to_list", "dislike", "skip"]  # without a value it counts


def test_over_http_a_short_look_says_nothing(tmp_path: Path) -> None:
    publish_release(tmp_path, ["a", "b", "c"])
    with served(tmp_path, data__positive="watch >= 0.5, play") as api:
        api.post("/v1/events", json=[event("ann", "a", "watch", value=0.1), event("ann", "b", "watch", value=0.9)])
        assert set(ids(api.get("/v1/recommend/ann"))) == {"a", "c"}
    with served(tmp_path) as api:
        assert ids(api.get("/v1/recommend/ann")) == ["c"]
