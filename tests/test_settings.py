"""The later setting wins, a misspelt one is refused, and every one of them reaches something."""

import ast
import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from recsys.errors import BadInput
from recsys.index import ItemIndex
from recsys.settings import Settings, Training, as_toml, load_settings
from training.fit import precision

ROOT = Path(__file__).parents[1]
SECTIONS = Settings.model_fields
ALL = [f"{section}.{key}" for section in SECTIONS for key in type(getattr(Settings(), section)).model_fields]


def test_without_anything_the_defaults_stand() -> None:
    assert load_settings(environ={}) == Settings()


def test_the_later_wins_file_then_environment_then_command_line(tmp_path: Path) -> None:
    first, second = tmp_path / "first.toml", tmp_path / "second.toml"
    first.write_text("[training]\nepochs = 1\nseed = 1\nlr = 0.1\nnegatives = 1\n[model]\ndim = 32\n")
    second.write_text("[training]\nseed = 2\nlr = 0.2\nnegatives = 2\n")
    environ = {"RECSYS_TRAINING__LR": "0.3", "RECSYS_TRAINING__NEGATIVES": "3", "RECSYS_HOME": "/x", "PATH": "/bin"}
    settings = load_settings(first, second, overrides={"training.negatives": "4"}, environ=environ)
    of = settings.training
    assert (of.epochs, of.seed, of.lr, of.negatives, settings.model.dim) == (1, 2, 0.3, 4, 32)


def test_the_redis_url_has_a_short_name(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[serving]\nredis_url = "redis://file"\n')
    assert load_settings(file, environ={"RECSYS_REDIS_URL": "redis://here"}).serving.redis_url == "redis://here"
    assert load_settings(file, environ={"RECSYS_REDIS_URL": ""}).serving.redis_url == "redis://file"


def refusal(*files: Path, environ: dict[str, str] | None = None, **overrides: Any) -> str:
    with pytest.raises(BadInput) as caught:
        load_settings(*files, overrides={name.replace("__", "."): value for name, value in overrides.items()}, environ=environ or {})
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_misspelt_key_or_section_is_refused_and_the_near_one_named(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("[training]\nepoch = 3\n")
    assert refusal(file) == f"{file}: there is no setting 'training.epoch'; did you mean 'epochs'?"
    file.write_text("[trainig]\nepochs = 3\n")
    assert refusal(file) == f"{file}: there is no setting 'trainig'; did you mean 'training'?"
    assert "there is no setting 'modle'; did you mean 'model'?" in refusal(modle__dim=3)
    misspelt = refusal(environ={"RECSYS_MODEL__DIMS": "8"})
    assert misspelt == "environment: RECSYS_MODEL__DIMS: there is no setting 'model.dims'; did you mean 'dim'?"
    assert "allowed: data, gate, index, job, model, neighbours, serving, store, training, update" in refusal(epochs=3)
    assert "'model.zzz'; allowed: blocks, dim, dropout" in refusal(model__zzz=3)


def test_a_key_outside_its_section_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text("epochs = 3\n")
    sections = "data, model, training, update, neighbours, index, serving, gate, job, store"
    assert refusal(file).endswith(f"'epochs' stands outside a section; the sections are: {sections}")


def test_a_wrong_type_or_range_says_where_it_came_from_what_came_and_what_is_allowed(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    file.write_text('[training]\nepochs = "many"\n')
    assert f"{file}: training.epochs = 'many': input should be a valid integer" in refusal(file)
    assert "model.dim = 2: input should be greater than or equal to 4" in refusal(model__dim=2)
    assert "model.encoder = 'rnn': input should be 'transformer', 'gru' or 'mean'" in refusal(model__encoder="rnn")
    assert "[A-Za-z0-9_-]" in refusal(serving__tenant="a b")
    assert refusal(environ={"RECSYS_TRAINING__LR": "-1"}).startswith("environment: RECSYS_TRAINING__LR: training.lr = '-1': ")


def test_the_heads_of_attention_divide_the_dimension() -> None:
    assert refusal(model__heads=3) == "settings: model.heads = 3: heads must divide model.dim, which is 128"
    assert "heads must divide model.dim, which is 7" in refusal(model__dim=7)
    assert load_settings(environ={}, overrides={"model.dim": 7, "model.encoder": "gru"}).model.dim == 7


def test_a_file_that_is_not_there_or_not_toml_is_one_line(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none.toml").startswith(f"there is no config file {tmp_path / 'none.toml'}; ")
    broken = tmp_path / "broken.toml"
    broken.write_text("[training\n")
    assert f"{broken} is not TOML" in refusal(broken)
    broken.write_bytes(b"\xff\xfe")
    assert f"{broken} is not TOML" in refusal(broken)


def test_settings_do_not_change_once_made() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().training.epochs = 3  # type: ignore[misc]


def test_what_is_written_as_toml_reads_back_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "config.toml"
    odd = {name: f"{value[0]}" for name, value in CHANGED.items()}
    odd |= {"update.strategy": 'replay(share=0.3)+ewc(x="q\\n")', "serving.redis_url": "unix:///a path/é#1", "training.lr": "1e-05"}
    odd["model.objective"] = "next_item"  # the other has no gru
    by_session = load_settings(overrides={"model.objective": "next_session"}, environ={})
    for settings in (Settings(), by_session, load_settings(overrides=odd, environ={})):
        file.write_text(as_toml(settings))
        assert load_settings(file, environ={}) == settings
    assert settings != Settings()


def test_the_configs_that_come_with_the_project_can_be_read() -> None:
    files = sorted((ROOT / "configs").rglob("*.toml"))
    for file in files:
        load_settings(file, environ={})
    assert len(files) == 11


def test_every_setting_says_what_it_means() -> None:
    described = [name for name in ALL if len(field(name).description or "") > 10]
    assert described == ALL
    assert len(ALL) == 75


def field(name: str) -> Any:
    section, key = name.split(".")
    return type(getattr(Settings(), section)).model_fields[key]


def test_every_setting_is_read_somewhere() -> None:
    """`settings.training.epochs`, `training.epochs` where the section is handed in, or `settings.epochs` likewise."""
    files = [file for room in ("recsys", "training", "serving", "eval") for file in (ROOT / room).rglob("*.py")]
    read = {reading for file in files if file.name != "settings.py" for reading in _readings(file)}
    unread = [name for name in ALL if name not in read and f"settings.{name.split('.')[1]}" not in read]
    assert len(files) > 40
    assert unread == []


def _readings(file: Path) -> list[str]:
    nodes = (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Attribute))
    return [f"{getattr(node.value, 'attr', getattr(node.value, 'id', ''))}.{node.attr}" for node in nodes]


TINY = {
    "model.dim": 8,
    "model.blocks": 1,
    "model.features": 64,
    "data.history": 10,
    "training.epochs": 1,
    "training.batch_size": 16,
    "training.negatives": 8,
    "update.epochs": 1,
    "update.strategy": "replay+ewc(samples=20)",
}
CHANGED: dict[str, tuple[Any, str]] = {
    "data.session_gap": (1e-3, "update"),
    "data.positive": ("like", "fit"),
    "data.history": (5, "fit"),
    "model.dim": (12, "fit"),
    "model.encoder": ("gru", "fit"),
    "model.objective": ("next_session", "fit"),
    "model.blocks": (2, "fit"),
    "model.heads": (1, "fit"),
    "model.dropout": (0.1, "fit"),
    "model.id_dropout": (0.5, "fit"),
    "model.temperature": (0.2, "fit"),
    "model.popularity": (0.5, "fit"),
    "model.features": (32, "fit"),
    "training.seed": (1, "fit"),
    "training.epochs": (2, "fit"),
    "training.batch_size": (8, "fit"),
    "training.lr": (0.01, "fit"),
    "training.negatives": (0, "fit"),
    "training.full_softmax_below": (1000, "fit"),
    "training.both_ways": (False, "fit"),
    "training.ahead": (2, "fit"),
    "training.wishes": (0.0, "fit"),
    "training.precision": ("float32" if precision(Training()) is torch.bfloat16 else "bfloat16", "fit"),
    "training.count_half_life": (3.0, "fit"),
    "update.strategy": ("naive", "update"),
    "update.epochs": (2, "update"),
    "update.lr": (0.01, "update"),
    "update.memory": (3, "fit"),
}
"""A value for each setting that shapes what is learned, and from which moment on it shows."""


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> tuple[pa.Table, dict[str, Any]]:
    from recsys.catalogue import Catalogue
    from recsys.home import Home
    from recsys.log import Log
    from recsys.simulate import simulate

    home = Home(tmp_path_factory.mktemp("home"))
    simulate(home, users=15, items=60, days=22)
    return Log(home.log).read(), Catalogue(home.items).items()


def learned(log: tuple[pa.Table, dict[str, Any]], upto: str, **changed: Any) -> str:
    """Return what a fit leaves, or an update behind it, as a hash."""
    from training.fit import fit
    from training.update import update

    events, catalogue = log
    half = len(events) // 2
    settings = load_settings(overrides={**TINY, **{name.replace("__", "."): value for name, value in changed.items()}}, environ={})
    first = fit(events.slice(0, half), settings, catalogue)
    return _hash(first if upto == "fit" else update(first, events.slice(half), events.slice(0, half), settings, catalogue))


def _hash(candidate: Any) -> str:
    digest = hashlib.sha256()
    for tensor in candidate.towers.state_dict().values():
        digest.update(tensor.numpy().tobytes())
    digest.update(candidate.bias().tobytes() + candidate.memory.keys.tobytes())
    return digest.hexdigest()


def test_changing_a_setting_changes_what_is_learned(log: tuple[pa.Table, dict[str, Any]]) -> None:
    usual, again = ({upto: learned(log, upto) for upto in ("fit", "update")} for _ in range(2))
    assert again == usual  # so a difference comes from the setting alone
    idle = [name for name, (value, upto) in CHANGED.items() if learned(log, upto, **{name.replace(".", "__"): value}) == usual[upto]]
    assert idle == ["training.ahead"]  # which says nothing where the objective is next_item
    by_session = learned(log, "fit", model__objective="next_session")
    assert learned(log, "fit", model__objective="next_session", training__ahead=2) != by_session
    assert [name for name in ALL if name.split(".")[0] in ("data", "model", "training", "update") and name not in CHANGED] == [
        "training.accelerator",
        "training.threads",
    ]


def test_changing_an_index_setting_changes_the_index() -> None:
    import numpy as np

    vectors = np.random.default_rng(0).normal(size=(2000, 8)).astype(np.float32)
    kinds = [ItemIndex.build(vectors, np.zeros(2000), "towers", limit, 0.9).faiss for limit in (3000, 100)]
    assert type(kinds[0]) is not type(kinds[1])
    few, many = (ItemIndex.build(vectors, np.zeros(2000), "towers", 100, recall).faiss for recall in (0.3, 1.0))
    assert few.nprobe < many.nprobe  # type: ignore[attr-defined]
