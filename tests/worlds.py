"""Small worlds for fast tests: a valid release whose user tower is a masked mean of item vectors."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from recsys.again import Again
from recsys.events import EVENT_TYPES, SCHEMA
from recsys.fusion import Fusion
from recsys.index import ItemIndex
from recsys.neighbours import Neighbours
from recsys.registry import FORMAT, Registry, Release
from recsys.settings import Settings, as_toml
from recsys.shared import Shared

DAY = 86_400_000
NOW = 1_700_000_000_000

SMALLEST = """
[data]
history = 5
[model]
dim = 8
blocks = 1
features = 16
[training]
epochs = 1
[update]
epochs = 1
strategy = "replay+ewc(samples=20)"
"""
"""A config.toml with which a fit takes a moment."""

NO_MEMORY = {
    "memory:start": np.zeros(1, np.int64),
    "memory:whose": np.zeros(0, np.uint64),
    "memory:item": np.zeros(0, np.int32),
    "memory:kind": np.zeros(0, np.int8),
    "memory:gap": np.zeros(0, np.int8),
    "memory:weight": np.zeros(0, np.float32),
    "memory:moment": np.zeros(0, np.int16),
    "memory:wish": np.zeros((0, 5), np.int32),
    "memory:surface": np.zeros(0, np.int32),
    "memory:keys": np.zeros(0),
}
"""What a release writes whose replay memory is empty (training.candidate.memory_tensors); without torch."""


def event_table(rows: list[dict[str, Any]]) -> pa.Table:
    """Make a table of events; timestamps in ms, what is not said is null."""
    return pa.table({field.name: pa.array([row.get(field.name) for row in rows]).cast(field.type) for field in SCHEMA}, schema=SCHEMA)


def publish_release(
    home: Path,
    items: list[str],
    vectors: np.ndarray | None = None,
    counts: list[float] | None = None,
    bias: list[float] | None = None,
    settings: Settings | None = None,
    dim: int = 8,
    exact_below: int = 50_000,
    neighbours: Neighbours | None = None,
    weights: tuple[float, float] = (0.0, 0.0),
    scale: float = 1.0,
    shared: Shared | None = None,
    known: pa.Table | None = None,
    **more: Any,
) -> Release:
    """Publish a release that knows `items`: their vectors random unless given, the first the most popular unless counted, no bias.

    weights: of the neighbours, who know nobody unless given, and of popularity; scale: what turns scores into logits; known: title and
    genres, an item a row, made up unless given; more: what else the manifest says.
    """
    settings = settings or Settings()
    rows = np.random.default_rng(len(items)).normal(size=(len(items), dim)) if vectors is None else np.asarray(vectors)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    table = np.concatenate([np.zeros((1, rows.shape[1]), np.float32), rows])
    towers = hashlib.sha256(table.tobytes()).hexdigest()
    registry = Registry(home / "releases", shared)
    with registry.draft() as draft:
        (draft / "config.toml").write_text(as_toml(settings))
        content = np.random.default_rng(0).normal(size=(settings.model.features, rows.shape[1])).astype(np.float32)
        save_file({"items.content.weight": content}, draft / "towers.safetensors")
        np.save(draft / "vectors.npy", table)
        np.save(draft / "prototypes.npy", table)
        table_of_items = _items(items, counts or list(range(len(items), 0, -1)))
        for column in ("title", "genres") if known is not None else ():
            assert known is not None
            table_of_items = table_of_items.set_column(table_of_items.column_names.index(column), column, known[column])
        pq.write_table(table_of_items, draft / "items.parquet")
        start = np.array([0.0, *(bias or [0.0] * len(items))], np.float32)
        np.save(draft / "bias.npy", start)
        ItemIndex.build(table, start, towers, exact_below, 0.98).write(draft)
        (neighbours or Neighbours()).write(draft)
        (draft / "strategy").mkdir()
        save_file(NO_MEMORY, draft / "strategy" / "state.safetensors")
        Fusion.start(*weights).write(draft)
        Again.start().write(draft)
        onnx.save(mean_tower(rows.shape[1]), draft / "user_tower.onnx")
        about = {
            "position": {"offset": 0, "until": None},
            "towers": towers,
            "metrics": {"items": len(items)},
            "seconds": {},
            "why": "test",
            "code": "test",
        }
        about |= {"scale": scale, "now": NOW, "format": FORMAT, "kinds": [1000] * len(EVENT_TYPES), "surfaces": []}
        return registry.publish(draft, registry.next_id(), registry.current(), about | more)


def mean_tower(dim: int) -> onnx.ModelProto:
    """Return a user tower: the mean of the history's item vectors, a dislike or skip counted as its opposite, normalised.

    items (B, L, d), kinds (B, L), gaps (B, L), lengths (B,) -> user (B, d). Later events weigh more by a hair, and gaps
    count a little, so that a wrong order or a wrong gap shows.
    """
    node = helper.make_node
    constant: dict[str, np.ndarray] = {
        "last": np.array([-1], np.int64),
        "one": np.array([1], np.int64),
        "zero": np.array(0, np.int64),
        "step": np.array(1, np.int64),
        "tiny": np.array(0.01, np.float32),
        "unit": np.array(1.0, np.float32),
        "minus": np.array(-1.0, np.float32),
        "second": np.array(1, np.int64),
        "dislike": np.array(6, np.int64),
        "skip": np.array(7, np.int64),
    }
    nodes = [
        node("Shape", ["items"], ["shape"]),
        node("Gather", ["shape", "second"], ["length"]),
        node("Range", ["zero", "length", "step"], ["places"]),
        node("Unsqueeze", ["lengths", "one"], ["ends"]),
        node("Less", ["places", "ends"], ["inside"]),
        node("Cast", ["inside"], ["mask"], to=TensorProto.FLOAT),
        node("Cast", ["places"], ["place"], to=TensorProto.FLOAT),
        node("Cast", ["gaps"], ["gap"], to=TensorProto.FLOAT),
        node("Sub", ["place", "gap"], ["late"]),
        node("Mul", ["late", "tiny"], ["later"]),
        node("Add", ["later", "unit"], ["weight"]),
        node("Equal", ["kinds", "dislike"], ["is_dislike"]),
        node("Equal", ["kinds", "skip"], ["is_skip"]),
        node("Or", ["is_dislike", "is_skip"], ["bad"]),
        node("Where", ["bad", "minus", "unit"], ["sign"]),
        node("Mul", ["weight", "sign"], ["signed"]),
        node("Mul", ["signed", "mask"], ["masked"]),
        node("Unsqueeze", ["masked", "last"], ["column"]),
        node("Mul", ["items", "column"], ["weighted"]),
        node("ReduceSum", ["weighted", "one"], ["sum"], keepdims=0),
        node("LpNormalization", ["sum"], ["user"], axis=-1, p=2),
    ]
    graph = helper.make_graph(
        nodes,
        "mean_tower",
        [
            helper.make_tensor_value_info("items", TensorProto.FLOAT, ["B", "L", dim]),
            helper.make_tensor_value_info("kinds", TensorProto.INT64, ["B", "L"]),
            helper.make_tensor_value_info("gaps", TensorProto.INT64, ["B", "L"]),
            helper.make_tensor_value_info("lengths", TensorProto.INT64, ["B"]),
        ],
        [helper.make_tensor_value_info("user", TensorProto.FLOAT, ["B", dim])],
        [numpy_helper.from_array(value, name) for name, value in constant.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.checker.check_model(model)
    return model


def _items(items: list[str], counts: list[float]) -> pa.Table:
    n = len(items)
    seen = pa.array([NOW] * n, pa.timestamp("ms", tz="UTC"))
    return pa.table(
        {
            "item_id": pa.array(items, pa.string()),
            "row": pa.array(range(1, n + 1), pa.int32()),
            "first_seen": seen,
            "last_seen": seen,
            "count": pa.array(counts, pa.float32()),
            "title": pa.array([f"Film {id}" if place % 2 == 0 else None for place, id in enumerate(items)], pa.string()),
            "genres": pa.array([["Drama"]] * n, pa.list_(pa.string())),
            "features": pa.array([[1, 2]] * n, pa.list_(pa.int32())),
        }
    )
