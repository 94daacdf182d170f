import numpy as np
import pytest

from eval.intervals import paired, per_window


def test_macro_counts_windows_alike_and_micro_queries():
    differences = [np.array([1.0, 1.0, 1.0, 0.0]), np.array([0.0, 0.5])]  # means 0.75 and 0.25, six queries with 3.5
    owners = [np.arange(4), np.arange(2)]
    assert paired(differences, owners)[0] == pytest.approx(0.5)
    assert paired(differences, owners, average="micro")[0] == pytest.approx(3.5 / 6)


def test_an_average_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"'macro'.*'micro'.*'mean'"):
        paired([np.ones(2)], [np.arange(2)], average="mean")  # type: ignore[arg-type]


def test_two_owners_give_the_interval_that_can_be_listed():
    """Drawing two of two owners gives 0, 1/2 or 1 with 1/4, 1/2, 1/4: the 95% interval is all of it, the 40% one its middle."""
    values, owners = [np.array([0.0, 1.0])], [np.array([7, 3])]
    assert paired(values, owners) == pytest.approx((0.5, 0.0, 1.0))
    assert paired(values, owners, level=0.4) == pytest.approx((0.5, 0.5, 0.5))


def test_owners_are_drawn_whole():
    """One owner's nine hits and another's single miss: a resample holds 18 of 18, 9 of 10 or 0 of 2 hits, never 5 of 10."""
    values, owners = np.array([1.0] * 9 + [0.0]), np.array([4] * 9 + [2])
    mean, low, high = paired([values], [owners], level=0.4, average="micro")
    assert (mean, low, high) == pytest.approx((0.9, 0.9, 0.9))
    assert paired([values], [owners])[1:] == pytest.approx((0.0, 1.0))


def test_the_width_is_that_of_the_mean_of_independent_owners():
    values = np.random.default_rng(1).normal(size=2000)
    mean, low, high = paired([values], [np.arange(2000)], resamples=4000)
    assert mean == pytest.approx(values.mean())
    assert (high - low) / 2 == pytest.approx(1.96 * values.std() / np.sqrt(2000), rel=0.05)
    owners = np.arange(2000) // 2  # the same values twice each: half as many independent ones
    mean, low, high = paired([np.repeat(values[:1000], 2)], [owners], resamples=4000)
    assert (high - low) / 2 == pytest.approx(1.96 * values[:1000].std() / np.sqrt(1000), rel=0.05)


def test_columns_are_drawn_together_and_calls_alike():
    rng = np.random.default_rng(2)
    windows, owners = [rng.random((30, 3)), rng.random((20, 3))], [rng.integers(0, 9, 30), rng.integers(0, 9, 20)]
    for average in ("macro", "micro"):
        whole = np.array(paired(windows, owners, average=average))
        assert whole.shape == (3, 3)
        for column in range(3):
            alone = np.array(paired([window[:, column] for window in windows], owners, average=average))
            assert alone == pytest.approx(whole[:, column])
    shifted = np.array(paired([window + 1 for window in windows], owners))
    assert shifted == pytest.approx(np.array(paired(windows, owners)) + 1)  # the same resamples, so the shift and nothing else
    assert np.array(paired(windows, owners, seed=1))[1:] != pytest.approx(np.array(paired(windows, owners))[1:])


def test_blocks_of_resamples_change_nothing(monkeypatch):
    values, owners = [np.random.default_rng(3).random(40)], [np.arange(40) // 2]
    whole = paired(values, owners)
    monkeypatch.setattr("eval.intervals.CELLS", 20 * 7)  # 1000 is no multiple of 7
    assert paired(values, owners) == pytest.approx(whole)


def test_a_window_without_queries_is_left_out():
    values, owners = [np.array([0.0, 1.0]), np.zeros(0)], [np.arange(2), np.zeros(0, int)]
    assert paired(values, owners) == pytest.approx((0.5, 0.0, 1.0))
    assert np.isnan(per_window(values, owners)[1]).all()
    assert per_window(values, owners)[0] == pytest.approx((0.5, 0.0, 1.0))


def test_nothing_to_draw_from_gives_nan_instead_of_certainty():
    mean, low, high = paired([np.array([1.0, 0.0])], [np.array([5, 5])])
    assert mean == 0.5
    assert np.isnan([low, high]).all()
    assert np.isnan(paired([np.zeros(0)], [np.zeros(0, int)])).all()
    assert np.isnan(paired([], [])).all()


def test_windows_by_themselves_are_those_of_the_whole():
    rng = np.random.default_rng(4)
    windows, owners = [rng.random((9, 2)), rng.random((5, 2))], [np.arange(9) // 2, np.arange(5)]
    found = per_window(windows, owners)
    assert [mean.tolist() for mean, _, _ in found] == [pytest.approx(window.mean(axis=0).tolist()) for window in windows]
    assert np.array(found[0]) == pytest.approx(np.array(paired(windows[:1], owners[:1])))
