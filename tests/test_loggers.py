"""What Lightning's loggers are told."""

import csv

import pytest
from run_worlds import question, write_log

from eval.command import evaluate
from eval.loggers import Loggers
from recsys.errors import BadInput


def test_every_window_is_logged_for_csv_and_tensorboard(tmp_path):
    log = write_log(tmp_path / "log.csv")
    found = evaluate(question(log), "x", tmp_path / "run")
    tables = list((tmp_path / "run" / "logs" / "csv").rglob("metrics.csv"))
    assert len(tables) == 2
    assert len(list((tmp_path / "run" / "logs" / "tensorboard").rglob("events.out.tfevents*"))) == 2
    popular = next(path for path in tables if "popular" in str(path))
    rows = list(csv.DictReader(popular.open()))
    assert [int(row["step"]) for row in rows] == [4, 5, 6, 7]
    said = [row["recall@20"] for row in found["methods"]["popular"]["windows"]]
    assert [float(row["recall@20"]) for row in rows] == pytest.approx(said, abs=1e-5)
    assert {"ndcg@5", "coverage@20", "seconds_learn", "release_bytes"} <= set(rows[0])


def test_mlflow_that_is_not_there_is_one_line_that_names_the_extra(tmp_path, monkeypatch):
    from lightning.pytorch.loggers import mlflow

    monkeypatch.setattr(mlflow, "_MLFLOW_AVAILABLE", False)
    with pytest.raises(BadInput, match=r"pip install -e '.\[mlflow\]'"):
        evaluate(question(write_log(tmp_path / "log.csv")), "x", tmp_path / "run", mlflow="http://localhost:1")
    assert not (tmp_path / "run").exists()


def test_a_figure_that_is_no_number_is_not_logged(tmp_path, capfd):
    logs = Loggers(tmp_path / "logs", "run")
    logs.log("popular", 0, 4, {"recall@1": 0.5, "diversity@1": float("nan")})
    logs.close()
    (written,) = (tmp_path / "logs").rglob("metrics.csv")
    with written.open() as file:
        (row,) = csv.DictReader(file)
    assert (row["recall@1"], "diversity@1" in row) == ("0.5", False)
    assert "NaN" not in capfd.readouterr().err
