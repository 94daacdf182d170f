"""A run is kept as it goes, can be stopped anywhere, and ends as if it had not been."""

import shutil
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from run_worlds import TINY, plan, stopping, told

from eval import replay as replays
from eval.baselines import BASELINES
from eval.methods import methods
from eval.replay import replay
from eval.run import Run
from eval.towers import MODES
from recsys.registry import Registry

EVERY = [*BASELINES, *MODES, "naive", "naive+dropout", "replay(share=0.3)+ewc", "der+soup", "naive+neighbours"]


@cache
def untouched(expression: str, seeds: int = 1, matrix: bool = False) -> dict[str, Any]:
    """What a replay tells that nobody stops: once for all the places where another is stopped."""
    with TemporaryDirectory() as folder:
        return told(replay(plan(), methods(expression, TINY, seeds), run=Run(Path(folder)), matrix=matrix))


def test_the_contract_covers_every_method():
    assert len(EVERY) >= 12


@pytest.mark.usefixtures("exported_once")
@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize(("where", "at"), [("eval.replay.answer", 2), ("eval.replay.assert_unanswered", 3), ("eval.run.Run.write", 1)])
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path, monkeypatch, name, where, at):
    """Stopped after the release is published but nothing is answered; before a lesson; and right behind the first answer."""
    run = Run(tmp_path / "stopped")
    with monkeypatch.context() as patch:
        patch.setattr(where, stopping(_resolve(where), at))
        with pytest.raises(KeyboardInterrupt):
            replay(plan(), methods(name, TINY), run=run, matrix=True)
    kept = sorted((tmp_path / "stopped" / "answers").rglob("*.npz"))
    assert len(kept) == {"eval.replay.answer": 1, "eval.replay.assert_unanswered": 2, "eval.run.Run.write": 1}[where]
    before = [path.read_bytes() for path in kept]
    resumed = replay(plan(), methods(name, TINY), run=run, matrix=True)
    assert told(resumed) == untouched(name, matrix=True)
    assert len(told(resumed)) == 4
    assert [path.read_bytes() for path in kept] == before, "what was answered is not answered again"


def _resolve(where: str) -> Any:
    module, name = where.rsplit(".", 1)
    return getattr(replays if module == "eval.replay" else Run, name)


@pytest.mark.usefixtures("exported_once")
def test_a_run_is_stopped_within_a_window_with_methods_that_share_their_towers(tmp_path, monkeypatch):
    expression = "popular,naive,naive+dropout,frozen"
    run = Run(tmp_path / "stopped")
    for at in (4, 6, 9):  # answers that each part gives before it is stopped
        with monkeypatch.context() as patch:
            patch.setattr(Run, "write", stopping(Run.write, at))
            with pytest.raises(KeyboardInterrupt):
                replay(plan(), methods(expression, TINY, 2), run=run)
    assert told(replay(plan(), methods(expression, TINY, 2), run=run)) == untouched(expression, 2)


@pytest.mark.usefixtures("exported_once")
def test_a_release_that_is_gone_is_learned_again(tmp_path, monkeypatch):
    run = Run(tmp_path / "stopped")
    with monkeypatch.context() as patch:
        patch.setattr(Run, "write", stopping(Run.write, 2))
        with pytest.raises(KeyboardInterrupt):
            replay(plan(), methods("naive", TINY), run=run)
    shutil.rmtree(run.releases)
    assert told(replay(plan(), methods("naive", TINY), run=run)) == untouched("naive")


@pytest.mark.usefixtures("exported_once")
@pytest.mark.parametrize("releases", ["kept", "gone"])
def test_methods_of_one_line_go_on_together_wherever_each_was_stopped(tmp_path, monkeypatch, releases):
    expression = "naive,naive+neighbours"
    run = Run(tmp_path / "stopped")
    with monkeypatch.context() as patch:
        patch.setattr(Run, "write", stopping(Run.write, 3))  # the one has answered two windows, the other one
        with pytest.raises(KeyboardInterrupt):
            replay(plan(), methods(expression, TINY), run=run)
    if releases == "gone":
        shutil.rmtree(run.releases)
    assert told(replay(plan(), methods(expression, TINY), run=run)) == untouched(expression)


@pytest.mark.usefixtures("exported_once")
def test_the_newest_two_releases_are_kept_and_nothing_is_a_pickle(tmp_path):
    run = Run(tmp_path)
    results = replay(plan(), methods("popular,naive,frozen", TINY), run=run)
    kept = {folder.name.split("-")[0]: Registry(folder).ids() for folder in run.releases.iterdir()}
    assert kept == {"naive": ["000003", "000004"], "frozen": ["000001"]}
    size = sum(path.stat().st_size for path in (run.releases).glob("naive*/000004/**/*") if path.is_file())
    assert results.answers["naive"][0][-1].cost.release_bytes == size
    files = list(tmp_path.rglob("*.npz"))
    assert len(files) == 4 + 3 * 4
    for path in files:
        with np.load(path, allow_pickle=False) as held:
            assert all(held[name].dtype != object for name in held.files)
    with np.load(next((tmp_path / "answers").rglob("0004.npz"))) as held:
        assert held["shown"].dtype == np.int32
        assert held["shown"].shape == (len(results.windows[0].owner), 20)


def test_a_half_written_file_is_no_answer(tmp_path):
    run = Run(tmp_path)
    whole = replay(plan(), methods("popular", TINY), run=run)
    path = next((tmp_path / "answers").rglob("0005.npz"))
    path.rename(path.with_name(".0005.npz.12345678.tmp"))
    assert not run.has("popular", 0, 5)
    assert told(replay(plan(), methods("popular", TINY), run=run)) == told(whole)


@pytest.mark.usefixtures("exported_once")
@pytest.mark.parametrize("at", [2, 3, 4])
def test_retrain_every_other_window_goes_on_where_it_was_stopped(tmp_path, monkeypatch, at):
    run = Run(tmp_path / "stopped")
    with monkeypatch.context() as patch:
        patch.setattr(Run, "write", stopping(Run.write, at))
        with pytest.raises(KeyboardInterrupt):
            replay(plan(), methods("retrain(every=2)", TINY), run=run)
    assert told(replay(plan(), methods("retrain(every=2)", TINY), run=run)) == untouched("retrain(every=2)")
