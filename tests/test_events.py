"""An event's id follows from what it says; every event type has a place and a sign."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from recsys import events

ROW = {"user_id": "u", "session_id": None, "item_id": "i", "timestamp": 1_000_000_000_000, "event_type": "watch", "value": 0.7}


def frame(*rows: dict, **types: str) -> pd.DataFrame:
    return pd.DataFrame(list(rows)).astype(types)


def test_the_same_row_gets_the_same_id_wherever_it_stands() -> None:
    alone = events.derive_event_ids(frame(ROW))[0]
    other = {**ROW, "user_id": "somebody", "session_id": "s", "value": None}
    assert events.derive_event_ids(frame(other, ROW, other))[1] == alone
    assert events.derive_event_ids(frame(ROW, user_id="object", session_id="object", value="float32"))[0] == alone
    assert events.derive_event_ids(pa.Table.from_pylist([ROW]).to_pandas())[0] == alone
    assert events.derive_event_ids(frame(ROW)[sorted(ROW)])[0] == alone


def test_an_id_never_changes_between_versions() -> None:
    """Ids stand in logs for good; if this fails, old logs would take in every old file again."""
    assert events.derive_event_ids(frame(ROW)).tolist() == ["3803eff984df14039eae55f32e1f3f12"]


@pytest.mark.parametrize(
    "change", [{"user_id": "v"}, {"session_id": "u"}, {"item_id": "j"}, {"timestamp": 1}, {"event_type": "like"}, {"value": None}]
)
def test_rows_that_differ_in_anything_get_different_ids(change: dict) -> None:
    one, other = events.derive_event_ids(frame(ROW, {**ROW, **change}))
    assert one != other
    assert len(one) == len(other) == 32


def test_many_rows_hardly_ever_share_an_id() -> None:
    rows = pd.DataFrame({**ROW, "session_id": None, "timestamp": np.arange(100_000)})
    assert len(set(events.derive_event_ids(rows))) == 100_000


def test_every_type_has_a_code_and_old_codes_stay() -> None:
    assert events.EVENT_TYPES[:10] == ("impression", "click", "play", "watch", "complete", "like", "dislike", "skip", "add_to_list", "undo")
    assert events.POSITIVE | events.NEGATIVE == events.HISTORY <= set(events.EVENT_TYPES)
    assert not events.POSITIVE & events.NEGATIVE
    assert events.IS_POSITIVE[events.CODE["like"]]
    assert not events.IS_POSITIVE[events.CODE["skip"]]
    assert events.IS_HISTORY[events.CODE["skip"]]
    assert not events.IS_HISTORY[events.CODE["impression"]]


def test_type_codes_follow_the_names_across_chunks() -> None:
    column = pa.chunked_array([["like", "skip"], ["like"], []], pa.string())
    assert events.type_codes(column).tolist() == [5, 7, 5]
    assert events.type_codes(["undo"]).tolist() == [9]
    assert events.type_codes(pa.chunked_array([], pa.string())).tolist() == []
