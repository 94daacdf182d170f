"""When an update is due: each trigger on a log made for it, and the index of drift by hand."""

import re

import numpy as np
import pyarrow as pa
import pytest
from worlds import NOW

from recsys.events import SCHEMA
from recsys.settings import JobSettings
from training.triggers import SHIFTS, Situation, _lengths, _shift_of_the_unknown, figures, psi, reasons

KNOWN = pa.array([f"i{n}" for n in range(100)])
NEVER = JobSettings(hours=0, events=0, new_items=0, drift=0, few=500)


def log(n: int, seed: int, items: int = 100, kinds: tuple[str, ...] = ("play",), session: int = 3, skewed: float = 1.0) -> pa.Table:
    """n events of sessions of so many, each by somebody else, on a day; the first items are the most popular."""
    rng = np.random.default_rng(seed)
    item = np.minimum(rng.pareto(skewed, n) * 5, items - 1).astype(int)
    time = NOW + (np.arange(n) // session) * 60_000 + np.arange(n) % session * 1000
    return pa.table(
        {
            "event_id": [f"{seed}-{k}" for k in range(n)],
            "user_id": [f"u{k // session}" for k in range(n)],
            "item_id": [f"i{k}" for k in item.tolist()],
            "timestamp": pa.array(time, pa.timestamp("ms", tz="UTC")),
            "event_type": rng.choice(kinds, n).tolist(),
            "value": pa.nulls(n, pa.float32()),
            "session_id": pa.nulls(n, pa.string()),
            "request_id": pa.nulls(n, pa.string()),
            "surface": pa.nulls(n, pa.string()),
        },
        schema=SCHEMA,
    )


def due(new: pa.Table, old: pa.Table | None = None, since: float = 0.1, **wanted: float) -> dict[str, str]:
    """Ask all triggers of which only some are on; since: hours after the last update."""
    return reasons(Situation(new, log(4000, 9) if old is None else old, KNOWN, since), NEVER.model_copy(update=wanted))


def test_a_schedule_wants_time_to_pass_and_something_new() -> None:
    assert due(log(5, 0), since=2.0, hours=1.0) == {"schedule": "2 hours since the last update (job.hours = 1)"}
    assert due(log(5, 0), since=0.9, hours=1.0) == {}
    assert due(log(0, 0), since=9.0, hours=1.0) == {}
    assert due(log(5, 0, kinds=("impression",)), since=9.0, hours=1.0) == {}  # of which nothing can be learned


def followed(seed: int, *stretches: tuple[int, float]) -> list[tuple[bool, float | None]]:
    """Outcomes of lists: of so many, a share are hits; a hit was held to be likely, a miss was not."""
    rng = np.random.default_rng(seed)
    hits = [bool(hit) for n, rate in stretches for hit in rng.random(n) < rate]
    return [(hit, 2.0 if hit else 9.0) for hit in hits]


def watched(measured: list[tuple[bool, float | None]], online: bool = True) -> dict[str, str]:
    return reasons(Situation(log(5, 0), log(4000, 9), KNOWN, 0.1, measured), NEVER.model_copy(update={"online": online}))


def test_lists_that_foretell_less_than_they_did_are_a_reason_and_better_ones_are_not() -> None:
    worse = followed(0, (2000, 0.4), (600, 0.2))
    assert re.search(r"the online hit rate went from 0\.(3|4)\d+ to 0\.2\d+", watched(worse)["online"])
    assert watched(worse, online=False) == {}
    assert watched(followed(0, (2000, 0.2), (600, 0.4))) == {}
    assert watched(followed(0, (2000, 0.4), (600, 0.2), (2000, 0.4))) == {}, "it was worse, and is no longer"
    sure = [(hit, 4.0 if n < 2000 else 6.0) for n, (hit, _) in enumerate(followed(0, (2600, 0.4)))]
    assert re.search(r"log-loss went from 4\.\d+ to (5|6)\.\d+", watched(sure)["online"])
    assert watched([(hit, None) for hit, _ in followed(0, (2600, 0.4))]) == {}, "where scores are no probabilities only hits are watched"


def test_lists_that_foretell_as_they_always_did_are_seldom_a_reason() -> None:
    assert sum(bool(watched(followed(seed, (3000, 0.3)))) for seed in range(60)) <= 2


def test_many_events_are_reason_enough() -> None:
    assert due(log(1200, 0), events=1200) == {"volume": "1,200 new events (job.events = 1,200)"}
    assert due(log(1199, 0), events=1200) == {}


def test_items_nobody_has_learned_are_counted_once_there_are_enough_events() -> None:
    many = log(1000, 0, items=300, skewed=0.6)
    share = 1 - np.isin(many["item_id"].to_numpy(zero_copy_only=False), KNOWN.to_pylist()).mean()
    assert 0.05 < share < 0.5
    assert f"{share:.1%} of the new events" in due(many, new_items=0.05)["new items"]
    assert due(many, new_items=0.6) == {}
    assert due(many.slice(0, 499), new_items=0.05) == {}


@pytest.mark.parametrize(
    ("what", "new"),
    [
        ("event types", log(2000, 1, kinds=("play", "dislike"))),
        ("popularity", log(2000, 1, skewed=0.3)),
        ("session lengths", log(2000, 1, session=12)),
    ],
)
def test_drift_is_found_where_it_is(what: str, new: pa.Table) -> None:
    assert f"the {what} drift" in due(new, drift=0.25)["drift"]


def test_items_that_the_stretch_before_did_not_have_drift_by_hand() -> None:
    """None before, then a tenth: 0.099 log(100) for those, and -0.1 log(0.9) for the others."""
    known = log(2000, 9).slice(0, 1000)
    ids = [f"n{n}" if n < 100 else id for n, id in enumerate(known["item_id"].to_pylist())]
    new = known.set_column(2, SCHEMA.field("item_id"), pa.array(ids))
    assert _shift_of_the_unknown(known, known, new) == pytest.approx(0.099 * np.log(100) - 0.1 * np.log(0.9))
    assert _shift_of_the_unknown(known, new, known) == 0, "fewer than before are no reason"


def test_what_the_triggers_look_at_is_told_in_numbers_though_all_of_them_are_off() -> None:
    new = log(1000, 1, items=200, skewed=0.3)
    told = figures(Situation(new, log(2000, 9), KNOWN, 2.504), NEVER)
    unknown = np.mean([item not in set(KNOWN.to_pylist()) for item in new["item_id"].to_pylist()])
    assert told["hours"] == 2.5
    assert told["new items"] == pytest.approx(unknown, abs=1e-4)
    assert set(told["drift"]) == {*SHIFTS, "unknown items"}
    half = log(2000, 9).slice(1000)
    assert told["drift"]["popularity"]["now"] == pytest.approx(SHIFTS["popularity"](half, new), abs=1e-4)
    assert told["drift"]["popularity"]["before"] == pytest.approx(SHIFTS["popularity"](log(2000, 9).slice(0, 1000), half), abs=1e-4)
    assert figures(Situation(log(10, 1), log(2000, 9), KNOWN, 0.0), NEVER) == {"hours": 0.0, "new items": None, "drift": {}}


def test_what_goes_on_as_before_does_not_drift() -> None:
    for seed in range(10):
        assert due(log(2000, seed), drift=0.25) == {}
    assert due(log(499, 1, session=12), drift=0.25) == {}  # too few to say
    assert due(log(2000, 1, session=12), old=log(100, 9), drift=0.25) == {}


def test_a_log_that_always_turns_over_does_not_drift_until_it_turns_over_faster() -> None:
    """Each stretch has items of its own, as where every hour has its news."""

    def stretch(number: int, own: float) -> pa.Table:
        events = log(2000, number)
        ids = [f"{id} of {number}" if n % 100 < 100 * own else id for n, id in enumerate(events["item_id"].to_pylist())]
        return events.set_column(events.column_names.index("item_id"), SCHEMA.field("item_id"), pa.array(ids))

    before = pa.concat_tables([stretch(1, 0.3), stretch(2, 0.3)])
    assert due(stretch(3, 0.3), old=before, drift=0.25) == {}
    assert "the popularity drift" in due(stretch(3, 0.7), old=before, drift=0.25)["drift"]


def test_the_stability_index_by_hand() -> None:
    old, new = np.array([50, 30, 20]), np.array([20, 30, 50])
    assert psi(old, new) == pytest.approx(0.3 * np.log(5 / 2) + 0.3 * np.log(5 / 2))
    assert psi(old, old * 7) == 0.0
    assert np.isfinite(psi(np.array([10, 0]), np.array([0, 10])))


def test_a_session_ends_after_half_an_hour() -> None:
    one = log(4, 0, session=4)
    time = pa.array(NOW + np.array([0, 60_000, 60_000 + 30 * 60_000, 60_000 + 60 * 60_000 + 1]), pa.timestamp("ms", tz="UTC"))
    apart = one.set_column(one.column_names.index("timestamp"), SCHEMA.field("timestamp"), time)
    assert _lengths(one).tolist() == [0, 0, 1, 0, 0, 0]  # one of four
    assert _lengths(apart).tolist() == [1, 0, 1, 0, 0, 0]  # of three, for 30 minutes are not more than half an hour, and one
