import numpy as np
import pytest

from eval.forgetting import Matrix, backward_transfer, forgetting, forward_transfer

QUALITY = np.array(
    [
        [0.30, 0.20, 0.10, 0.05],  # the first release, nothing learned of any of these windows
        [0.50, 0.28, 0.20, 0.10],
        [0.60, 0.55, 0.30, 0.20],
        [0.45, 0.50, 0.70, 0.25],  # the last one; it learned windows 0, 1 and 2
    ]
)


def test_forgetting_is_the_best_earlier_release_minus_the_last():
    assert forgetting(QUALITY) == pytest.approx(((0.60 - 0.45) + (0.55 - 0.50)) / 2)


def test_forgetting_ignores_releases_that_had_not_learned_the_window():
    changed = QUALITY.copy()
    changed[0, 0] = changed[0, 1] = changed[1, 1] = 0.99
    assert forgetting(changed) == forgetting(QUALITY)


def test_a_last_release_that_is_better_than_ever_has_forgotten_less_than_nothing():
    assert forgetting(np.array([[0.0, 0, 0], [0.4, 0, 0], [0.5, 0, 0]])) == pytest.approx(-0.1)


def test_backward_transfer_is_the_last_release_against_the_one_that_just_learned():
    assert backward_transfer(QUALITY) == pytest.approx(((0.45 - 0.50) + (0.50 - 0.55)) / 2)


def test_forward_transfer_is_the_live_release_against_the_first():
    assert forward_transfer(QUALITY) == pytest.approx(((0.28 - 0.20) + (0.30 - 0.10) + (0.25 - 0.05)) / 3)


def test_what_was_not_asked_is_left_out():
    holes = QUALITY.copy()
    holes[2, 0] = holes[3, 1] = holes[0, 3] = np.nan
    assert forgetting(holes) == pytest.approx(0.50 - 0.45)
    assert backward_transfer(holes) == pytest.approx(0.45 - 0.50)
    assert forward_transfer(holes) == pytest.approx(((0.28 - 0.20) + (0.30 - 0.10)) / 2)


@pytest.mark.parametrize("releases", [0, 1, 2])
def test_too_few_releases_are_nan_and_no_warning(releases):
    quality = QUALITY[:releases, :releases]
    assert np.isnan(forgetting(quality))
    assert np.isnan(backward_transfer(quality))
    assert np.isnan(forward_transfer(quality)) == (releases < 2)


def test_a_matrix_is_written_with_none_where_nothing_was_asked():
    holes = QUALITY[:2, :2].copy()
    holes[0, 1] = np.nan
    assert Matrix("recall@20", [8, 9], holes).as_dict() == {
        "metric": "recall@20",
        "windows": [8, 9],
        "matrix": [[0.3, None], [0.5, 0.28]],
        "forgetting": None,
        "backward_transfer": None,
        "forward_transfer": None,
    }
