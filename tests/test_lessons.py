"""Timelines become lessons: read from both ends, softened by neighbours who have other timelines."""

import numpy as np
import pytest
from test_sessions import MINUTE, VOCAB, table

from recsys.batches import WISHES, Examples
from recsys.neighbours import Neighbours
from recsys.sessions import N_GAPS, Sessions, backwards, gap_buckets, histories, sessionise
from recsys.settings import Settings, load_settings
from recsys.vocab import Vocabulary
from training.lessons import BEST, lessons, wishes


def settings(**training: object) -> Settings:
    return load_settings(overrides={f"training.{name}": value for name, value in training.items()}, environ={})


def told(some: Examples) -> list[str]:
    """Each example as the letters of its items."""
    return ["".join(VOCAB.ids[row] for row in some.take(np.array([n])).item) for n in range(len(some))]


def read(sessions: Sessions, learn: np.ndarray | None = None, memory: Neighbours | None = None, **training: object) -> Examples:
    everything = np.ones(len(sessions), bool)
    moment = np.arange(len(sessions))
    return lessons(sessions, everything if learn is None else learn, moment, memory or knowing(sessions), settings(**training), seed=0)


def knowing(*timelines: Sessions) -> Neighbours:
    memory = Neighbours()
    for sessions in timelines:
        memory.add(sessions)
    return memory


TWO_SESSIONS = sessionise(table(*(("u", None, item, minute) for item, minute in zip("abcde", (0, 1, 10, 500, 502), strict=True))), VOCAB)


def test_a_life_is_read_forwards_and_each_session_from_its_end_too() -> None:
    assert told(read(TWO_SESSIONS, wishes=0)) == ["abcde", "cba", "ed"]
    assert told(read(TWO_SESSIONS, wishes=0, both_ways=False)) == ["abcde"]


def test_which_way_a_timeline_is_read_shows_in_its_silences() -> None:
    both = read(TWO_SESSIONS, wishes=0)
    there, back, again = (both.take(np.array([n])).gap.tolist() for n in range(3))
    assert there == gap_buckets(TWO_SESSIONS.time).tolist()
    long, short = gap_buckets(np.array([0, 9 * MINUTE]))[1], gap_buckets(np.array([0, MINUTE]))[1]
    assert long != short
    assert back == [N_GAPS, N_GAPS + long, N_GAPS + short]
    assert max(there) < N_GAPS <= min(back + again)


def test_the_longest_silence_read_from_the_end_is_still_a_bucket() -> None:
    year = sessionise(table(("u", "s", "a", 0), ("u", "s", "b", 600_000)), VOCAB)
    assert read(year, wishes=0).gap.max() == 2 * N_GAPS - 1


def test_read_from_the_end_only_what_is_to_be_learned_is_a_target_and_keeps_its_moment() -> None:
    learn = np.array([False, True, False, False, True])
    both = read(TWO_SESSIONS, learn, wishes=0)
    assert told(both) == ["abcde", "cba"]  # "ed" is left out: e is what it begins with
    assert both.weight.tolist() == [0, 1, 0, 0, 1, 0, 1, 0]
    assert both.moment.tolist() == [0, 1, 2, 3, 4, 2, 1, 0]


STRANGERS = Vocabulary([f"{item}{n}" for n in range(40) for item in "xyz"])
NOTHING_SHARED = sessionise(table(*((f"u{n}", None, f"{item}{n}", t) for n in range(40) for t, item in enumerate("xyz"))), STRANGERS)


def test_nobody_is_asked_about_their_own_timeline() -> None:
    """Nobody shares an item with anybody: whoever has a wish to offer has read the answer."""
    softened = read(NOTHING_SHARED, wishes=0.5)
    assert len(softened) == 80
    assert not softened.wish.any()
    told = knowing(NOTHING_SHARED)
    query, _, _ = told.votes(histories(NOTHING_SHARED, np.array([1]), 10), NOTHING_SHARED.time[1:2])
    assert len(query)  # so a leak would have shown
    other = sessionise(table(*((f"v{n}", None, f"{item}{n}", t) for n in range(40) for t, item in enumerate("xyz"))), STRANGERS)
    assert read(NOTHING_SHARED, memory=knowing(NOTHING_SHARED, other), wishes=0.5).wish.any()


def world(people: int = 60, seed: int = 0) -> Sessions:
    """People who watch 2 to 7 of 8 films, some a day later, now and then one that they do not like; of some all days are one session."""
    rng = np.random.default_rng(seed)
    rows = []
    for n in range(people):
        minute = float(rng.integers(0, 3000))
        for item in rng.choice(list("abcdefgh"), rng.integers(2, 8)):
            minute += float(rng.choice([1, 5, 1440]))
            rows.append(
                (f"u{n}", f"s{n}" if n % 2 else None, item, minute, str(rng.choice(["watch", "like", "dislike"], p=[0.6, 0.3, 0.1])))
            )
    return sessionise(table(*rows), VOCAB)


def asked_slowly(timelines: list[Sessions], read: Sessions, time: int, at: int) -> dict[int, float]:
    """Ask a memory without the event's owner, one event at a time -> item: share of the best votes."""
    memory = Neighbours()
    for sessions in timelines:
        others = np.array([name != read.owners[read.owner[at]] for name in sessions.owners])
        kept = others[sessions.owner]
        columns = (getattr(sessions, name)[kept] for name in ("item", "kind", "time", "session", "place"))
        start = np.concatenate([[0], np.cumsum(np.diff(sessions.start)[others])])
        memory.add(Sessions([name for name, other in zip(sessions.owners, others, strict=True) if other], start, *columns))
    _, item, vote = memory.votes(histories(read, np.array([at]), memory.newest), np.array([time]))
    best = np.argsort(-vote, kind="stable")[:BEST]
    return dict(zip(item[best].tolist(), (vote[best] / vote[best].sum()).tolist(), strict=True)) if len(best) else {}


@pytest.mark.parametrize("backward", [False, True], ids=["forwards", "from the end"])
@pytest.mark.parametrize("begun", [False, True], ids=["first fit", "update"])
def test_wishes_are_drawn_from_the_votes_of_all_others_as_often_as_these_say(backward: bool, begun: bool) -> None:
    whole = world()
    timelines = [world(people=20, seed=1), whole] if begun else [whole]
    mirror, place = backwards(whole) if backward else (whole, np.arange(len(whole)))
    learn = np.random.default_rng(3).random(len(whole)) < 0.8
    rng, memory = np.random.default_rng(5), knowing(*timelines)
    draws = np.hstack([wishes(mirror, learn[place], whole.time[place], memory, rng) for _ in range(200)])
    assert draws.shape == (len(whole), 200 * WISHES)
    apart, some = 0.0, 0
    for at in range(len(whole)):
        askable = learn[place[at]] and mirror.positive[at]
        expected = asked_slowly(timelines, mirror, whole.time[place[at]], at) if askable else {}
        drawn = np.bincount(draws[at], minlength=10) / draws.shape[1]
        assert set(np.flatnonzero(drawn)) <= (set(expected) or {0})
        if expected:
            apart = max(apart, *(abs(drawn[item] - share) for item, share in expected.items()))
        some += len(expected) > 3
    assert apart < 0.08  # five standard errors of a thousand draws
    assert some > 50


def test_threads_and_the_size_of_a_part_change_no_wish(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = world()
    learn, memory = np.ones(len(whole), bool), knowing(whole)
    one = wishes(whole, learn, whole.time, memory, np.random.default_rng(5))
    monkeypatch.setattr("training.lessons.AT_ONCE", 7)
    assert np.array_equal(one, wishes(whole, learn, whole.time, memory, np.random.default_rng(5), threads=3))
    assert (one > 0).any()


def test_both_readings_have_wishes_for_what_is_learned_and_for_nothing_else() -> None:
    whole = world()
    learn = np.random.default_rng(3).random(len(whole)) < 0.5
    both = read(whole, learn, wishes=0.5)
    place = both.moment  # see `read`
    back = both.gap >= N_GAPS
    for part in (back, ~back):
        assert (both.wish[part & (both.weight > 0), 0] > 0).mean() > 0.9
        assert not both.wish[part & ~learn[place]].any()


def test_asking_leaves_the_memory_as_it_was() -> None:
    memory = Neighbours()
    memory.add(world(people=5, seed=1))
    before = [getattr(memory, name).copy() for name in ("owner", "start", "item", "time", "ended", "posting", "code")]
    read(world(), memory=memory, wishes=0.5)
    names = ("owner", "start", "item", "time", "ended", "posting", "code")
    assert all(np.array_equal(getattr(memory, name), old) for name, old in zip(names, before, strict=True))


def test_without_wishes_nobody_is_asked_and_the_same_seed_asks_the_same() -> None:
    assert not read(world(), wishes=0).wish.any()
    one, other = (read(world(), wishes=0.5) for _ in range(2))
    assert np.array_equal(one.wish, other.wish)
    assert one.wish.any()


def test_wishes_change_neither_what_is_seen_nor_what_counts() -> None:
    plain, softened = read(world(), wishes=0), read(world(), wishes=0.5)
    for name in ("start", "item", "kind", "gap", "weight", "moment"):
        assert np.array_equal(getattr(plain, name), getattr(softened, name)), name
