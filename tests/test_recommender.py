"""From Python: fit, go on learning, recommend; pandas in, pandas out, the same log and releases as the command line."""

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from recsys import Recommender
from recsys.errors import BadInput, RecsysError, ReleaseNotFound
from recsys.events import HISTORY, POSITIVE
from recsys.home import Home
from recsys.log import Log
from recsys.registry import Registry
from recsys.settings import NeighbourSettings, Settings, load_settings
from recsys.simulate import simulate
from serving.history import Event
from serving.snapshot import Snapshot

CUT = pd.Timestamp("2024-01-15", tz="UTC")
EARLY = pd.Timestamp("2024-01-12", tz="UTC")


@pytest.fixture(scope="module")
def settings() -> Settings:
    tiny = {"model.dim": 8, "model.blocks": 1, "model.features": 64, "training.epochs": 1, "update.epochs": 1}
    return load_settings(overrides={**tiny, "update.strategy": "replay+ewc(samples=20)"}, environ={})


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    """40 people and 60 films over 22 days, then a stranger and a film nobody knew."""
    home = Home(tmp_path_factory.mktemp("simulated"))
    simulate(home, users=40, items=60, days=22)
    table = Log(home.log).read().to_pandas()[["user_id", "item_id", "timestamp", "event_type", "value"]]
    last = table["timestamp"].max()
    late = pd.DataFrame(
        {
            "user_id": ["stranger", "stranger"],
            "item_id": ["film-000001", "premiere"],
            "timestamp": [last + pd.Timedelta(minutes=m) for m in (1, 2)],
            "event_type": ["complete", "like"],
        }
    )
    return pd.concat([table, late.astype({"timestamp": table["timestamp"].dtype})], ignore_index=True)


@pytest.fixture(scope="module")
def fitted(events: pd.DataFrame, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    return Recommender(tmp_path_factory.mktemp("fitted") / "home", settings).fit(events[events["timestamp"] < CUT])


@pytest.fixture(scope="module")
def grown(events: pd.DataFrame, settings: Settings, fitted: Recommender, tmp_path_factory: pytest.TempPathFactory) -> Recommender:
    """The fitted one, saved, loaded and taught the rest."""
    folder = tmp_path_factory.mktemp("grown") / "home"
    fitted.save(folder)
    model = Recommender.load(folder)
    model.settings = settings
    model.recommend(["nobody"])  # it holds the old release in memory; the next answer must come from the new one
    return model.partial_fit(events[events["timestamp"] >= CUT])


def seen(events: pd.DataFrame, user: str) -> set[str]:
    return set(events.loc[events["user_id"] == user, "item_id"])


def people(events: pd.DataFrame) -> list[str]:
    return sorted(events.loc[events["timestamp"] < EARLY, "user_id"].unique())


def test_recommendations_are_ranked_from_one_best_first(fitted: Recommender, events: pd.DataFrame) -> None:
    users = people(events)[:5]
    answer = fitted.recommend(reversed(users), k=7)
    assert list(answer.columns) == ["user_id", "item_id", "score", "rank"]
    assert list(answer["user_id"].unique()) == users[::-1]
    for _, mine in answer.groupby("user_id"):
        assert mine["rank"].tolist() == [1, 2, 3, 4, 5, 6, 7]
        assert (mine["score"].diff().dropna() <= 0).all()
        assert mine["item_id"].is_unique
    assert np.isfinite(answer["score"]).all()


def test_what_was_seen_is_left_out_unless_asked_and_what_was_disliked_always(fitted: Recommender, events: pd.DataFrame) -> None:
    known = events[events["timestamp"] < CUT]
    users = people(events)
    everything, new = fitted.recommend(users, k=1000, exclude_seen=False), fitted.recommend(users, k=1000)
    hated = known[known["event_type"].isin(["dislike", "skip"])].groupby("user_id")["item_id"].agg(set)
    catalogue = set(known["item_id"])
    assert len(hated) > 10
    for user in users:
        wanted = catalogue - hated.get(user, set())
        assert set(everything.loc[everything["user_id"] == user, "item_id"]) == wanted
        assert set(new.loc[new["user_id"] == user, "item_id"]) == wanted - seen(known, user)


def test_a_person_nobody_met_gets_what_is_popular_now(fitted: Recommender, settings: Settings, events: pd.DataFrame) -> None:
    answer = fitted.recommend(["nobody", "nobody else"], k=5)
    mine, theirs = (answer.loc[answer["user_id"] == user, "item_id"].tolist() for user in ("nobody", "nobody else"))
    known = events[(events["timestamp"] < CUT) & events["event_type"].isin(POSITIVE)]
    age = (known["timestamp"].max() - known["timestamp"]) / pd.Timedelta(days=settings.training.count_half_life)
    popular = (0.5**age).groupby(known["item_id"]).sum().nlargest(5)
    assert mine == theirs == popular.index.tolist()


def test_people_with_different_pasts_get_different_films(fitted: Recommender, events: pd.DataFrame) -> None:
    scores = fitted.recommend(people(events)[:2], k=1000, exclude_seen=False).pivot(index="item_id", columns="user_id", values="score")
    one, other = (scores.dropna()[user] for user in scores)
    assert not np.allclose(one, other)


def lived(events: pd.DataFrame, user: str) -> list[Event]:
    """What the API's profile of a person would hold."""
    mine = events[(events["user_id"] == user) & events["event_type"].isin(HISTORY)].sort_values("timestamp", kind="stable")
    assert mine["timestamp"].is_unique  # so that the order is not in question
    time = mine["timestamp"].astype("datetime64[ms, UTC]").astype("int64")
    return [Event(*row) for row in zip(mine["item_id"], mine["event_type"], time, strict=True)]


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_the_answer_is_that_of_the_api(grown: Recommender, events: pd.DataFrame, exclude_seen: bool) -> None:
    snapshot = Snapshot.load(Registry(grown.home.releases).open())
    assert snapshot.fusion is not None
    spoke: set[str] = set()
    for user in [*people(events)[:10], "stranger"]:
        answer = grown.recommend(user, k=15, exclude_seen=exclude_seen)
        served = snapshot.recommend(lived(events, user), 15, exclude_seen)
        assert answer["item_id"].tolist() == [item["item_id"] for item in served]
        np.testing.assert_allclose(answer["score"], [item["score"] for item in served], rtol=1e-3)
        spoke |= {item["source"] for item in served}
    assert spoke > {"neighbours"}
    assert grown.recommend("nobody", k=15)["item_id"].tolist() == [item["item_id"] for item in snapshot.recommend([], 15)]


def test_without_fusion_the_answer_is_that_of_the_towers_here_and_in_the_api(settings: Settings, events: pd.DataFrame) -> None:
    alone = settings.model_copy(update={"neighbours": NeighbourSettings(fuse=False)})
    some = events.head(300)
    models = [Recommender(settings=chosen).fit(some) for chosen in (alone, settings)]
    snapshot, user = Snapshot.load(Registry(models[0].home.releases).open()), some["user_id"].value_counts().index[0]
    for exclude_seen in (True, False):
        answer, fused = (model.recommend(user, k=15, exclude_seen=exclude_seen) for model in models)
        served = snapshot.recommend(lived(some, user), 15, exclude_seen)
        assert answer["item_id"].tolist() == [item["item_id"] for item in served]
        np.testing.assert_allclose(answer["score"], [item["score"] for item in served], rtol=1e-3, atol=1e-5)
        assert answer["item_id"].tolist() != fused["item_id"].tolist()


def test_who_has_seen_everything_gets_nothing_and_no_warning(settings: Settings, events: pd.DataFrame) -> None:
    some = events.head(300)
    last = some["timestamp"].max()
    everything = pd.DataFrame(
        {"user_id": "glutton", "item_id": some["item_id"].unique(), "timestamp": last, "event_type": "watch", "value": None}
    )
    model = Recommender(settings=settings).fit(pd.concat([some, everything.astype({"timestamp": some["timestamp"].dtype})]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert model.recommend("glutton").empty
        assert len(model.recommend("glutton", k=5, exclude_seen=False)) == 5


def test_one_name_is_one_user_and_asking_twice_answers_once(fitted: Recommender) -> None:
    once = fitted.recommend("user-000001", k=3)
    assert once["user_id"].tolist() == ["user-000001"] * 3
    pd.testing.assert_frame_equal(fitted.recommend(["user-000001", "user-000001"], k=3), once)
    assert list(fitted.recommend([]).columns) == list(once.columns)
    assert fitted.recommend([]).empty


def test_similar_items_are_near_and_never_the_item_itself(fitted: Recommender) -> None:
    answer = fitted.similar_items(["film-000001", "film-000002"], k=1000)
    assert list(answer.columns) == ["item_id", "similar_item_id", "score", "rank"]
    for item, near in answer.groupby("item_id"):
        assert item not in set(near["similar_item_id"])
        assert near["rank"].tolist() == list(range(1, len(near) + 1))
        assert near["score"].between(-1.001, 1.001).all()
        assert near["score"].is_monotonic_decreasing
    score = answer.set_index(["item_id", "similar_item_id"])["score"]
    assert score["film-000001", "film-000002"] == pytest.approx(score["film-000002", "film-000001"], abs=1e-5)
    assert fitted.similar_items("film-000001", k=2)["similar_item_id"].tolist() == answer["similar_item_id"].head(2).tolist()
    assert fitted.similar_items([]).empty


def test_new_people_and_items_are_welcome_in_a_partial_fit(fitted: Recommender, grown: Recommender) -> None:
    with pytest.raises(BadInput, match="'premiere' is not known"):
        fitted.similar_items("premiere")
    assert len(grown.similar_items("premiere", k=3)) == 3
    answer = grown.recommend(["stranger", "user-000001"], k=1000)
    assert not {"premiere", "film-000001"} & set(answer.loc[answer["user_id"] == "stranger", "item_id"])
    assert "premiere" in set(answer.loc[answer["user_id"] == "user-000001", "item_id"])
    releases = Registry(grown.home.releases)
    assert releases.ids() == ["000001", "000002"]
    assert releases.open().manifest["parent"] == "000001"


def test_a_partial_fit_changes_the_answers_of_the_model_at_hand(fitted: Recommender, grown: Recommender) -> None:
    assert not fitted.recommend(["nobody"], k=20).equals(grown.recommend(["nobody"], k=20))


def test_the_same_events_again_teach_nothing_new(grown: Recommender, events: pd.DataFrame) -> None:
    before, answers = len(Log(grown.home.log)), grown.recommend(people(events))
    grown.partial_fit(events)
    assert len(Log(grown.home.log)) == before
    assert Registry(grown.home.releases).ids() == ["000001", "000002"]
    pd.testing.assert_frame_equal(grown.recommend(people(events)), answers)


def test_fitting_twice_on_the_same_events_gives_the_same_release(settings: Settings, events: pd.DataFrame) -> None:
    model = Recommender(settings=settings)
    content = [Registry(model.fit(events.head(300)).home.releases).open().manifest["content"] for _ in range(2)]
    assert len(Log(model.home.log)) == 300
    assert content[0] == content[1]


def test_what_is_saved_and_loaded_recommends_the_same(grown: Recommender, events: pd.DataFrame, tmp_path: Path) -> None:
    grown.save(tmp_path / "saved")
    loaded = Recommender.load(tmp_path / "saved")
    pd.testing.assert_frame_equal(loaded.recommend(people(events)), grown.recommend(people(events)))
    pd.testing.assert_frame_equal(loaded.similar_items("premiere"), grown.similar_items("premiere"))
    with pytest.raises(BadInput, match="exists already; save to a new folder"):
        grown.save(tmp_path / "saved")
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_a_partial_fit_before_any_fit_is_the_first_fit_and_items_bring_their_content(settings: Settings, events: pd.DataFrame) -> None:
    items = pd.DataFrame({"item_id": ["film-000001"], "title": ["Heat (1995)"], "genres": ["Crime|Drama"]})
    model = Recommender(settings=settings).partial_fit(events.head(300), items)
    release = Registry(model.home.releases).open()
    assert release.manifest["why"] == "first fit"
    known = {row["item_id"]: row for row in pd.read_parquet(release.file("items.parquet")).to_dict("records")}
    assert known["film-000001"]["title"] == "Heat (1995)"
    assert len(known["film-000001"]["features"]) == 5  # heat, 1995, crime, drama, the year
    assert len(known["film-000002"]["features"]) == 0


def test_ids_may_be_numbers_and_times_seconds(settings: Settings) -> None:
    frame = pd.DataFrame({"user_id": [1, 1, 2], "item_id": [10, 20, 10], "timestamp": [1.5e9, 1.5e9 + 1, 1.5e9 + 2]})
    answer = Recommender(settings=settings).fit(frame).recommend([2])  # type: ignore[list-item]
    assert answer[["user_id", "item_id", "rank"]].to_numpy().tolist() == [["2", "20", 1]]


def test_refused_rows_are_told_and_the_rest_is_learned(settings: Settings, events: pd.DataFrame) -> None:
    frame = events.head(300).copy()
    frame.loc[5, "item_id"] = None
    model = Recommender(settings=settings)
    with pytest.warns(UserWarning, match="1 of 300 rows refused: item_id is missing"):
        model.fit(frame)
    assert len(Log(model.home.log)) == 299


WRONG = {
    "are an empty DataFrame": lambda events: events.head(0),
    "have no column 'item_id', only user_id, timestamp": lambda events: events[["user_id", "timestamp"]],
    "have no column 'timestamp'": lambda events: events.drop(columns="timestamp"),
    "have no column 'user_id'": lambda events: events.drop(columns="user_id"),
    "none of the 9 rows can be used: 9 because timestamp is missing or NaN, as in the events": lambda events: events.head(9).assign(
        timestamp=np.nan
    ),
    "give each column one type": lambda events: events.head(2).assign(user_id=["ann", 7]),
}


@pytest.mark.parametrize("message", sorted(WRONG))
def test_events_that_cannot_be_used_are_one_clear_error_and_nothing_is_written(
    message: str, events: pd.DataFrame, settings: Settings, tmp_path: Path
) -> None:
    for teach in ("fit", "partial_fit"):
        with pytest.raises(BadInput, match=message) as caught:
            getattr(Recommender(tmp_path / "home", settings), teach)(WRONG[message](events))
        assert "\n" not in str(caught.value)
        assert not list(tmp_path.rglob("*.parquet"))


def test_questions_that_cannot_be_answered_are_one_clear_error(fitted: Recommender, tmp_path: Path) -> None:
    for ask in (lambda: fitted.recommend(["ann"], k=0), lambda: fitted.similar_items("film-000001", k=-1)):
        with pytest.raises(BadInput, match="1 or more; got"):
            ask()
    with pytest.raises(BadInput, match="item 'Casablanca' is not known"):
        fitted.similar_items(["Casablanca"])
    with pytest.raises(ReleaseNotFound, match="there is no release"):
        Recommender.load(tmp_path)
    with pytest.raises(RecsysError, match="there is no release"):
        Recommender(tmp_path / "new").recommend(["ann"])
    assert list(tmp_path.iterdir()) == []
