"""The user tower as an ONNX graph, so that serving needs no torch.

The graph is exported once for each shape of the tower; later releases put their weights into the parent's graph, which
takes milliseconds instead of seconds.
"""

import contextlib
import io
import logging
import warnings
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from recsys.towers import UserTower

FILE = "user_tower.onnx"


class _Last(nn.Module):
    def __init__(self, tower: UserTower):
        super().__init__()
        self.tower = tower

    def forward(self, items: Tensor, kinds: Tensor, gaps: Tensor, lengths: Tensor, surface: Tensor | None = None) -> Tensor:
        return self.tower.last(items, kinds, gaps, lengths, surface)


def user_tower(tower: UserTower, path: Path, parent: Path | None = None) -> None:
    """Write items (B, L, d), kinds, gaps (B, L), lengths (B,) -> user (B, d), for any B and any L up to the tower's.

    Where the tower has heads, surface (B,) is asked for too: the number of where each person is (recsys.events.surface_number).
    """
    graph = (_with_weights(onnx.load(parent), tower) if parent else None) or _exported(tower)
    path.write_bytes(graph.SerializeToString(deterministic=True))


def _with_weights(graph: onnx.ModelProto, tower: UserTower) -> onnx.ModelProto | None:
    """Put the tower's weights into a graph made for the same shapes; None where the shapes differ."""
    told = {**dict(tower.named_parameters()), **({"labels": tower.labels} if len(tower.heads) else {})}
    weights = {f"tower.{name}": p for name, p in told.items()}
    slots = {slot.name: slot for slot in graph.graph.initializer if slot.name.startswith("tower.")}
    if slots.keys() != weights.keys() or any(tuple(slots[n].dims) != tuple(p.shape) for n, p in weights.items()):
        return None
    for name, p in weights.items():
        slots[name].CopyFrom(numpy_helper.from_array(p.detach().numpy(), name))
    return graph


def _exported(tower: UserTower) -> onnx.ModelProto:
    dim, length = tower.place.embedding_dim, min(7, tower.place.num_embeddings)
    sample: tuple[Tensor, ...] = (
        torch.randn(3, length, dim),
        torch.ones(3, length).long(),
        torch.ones(3, length).long(),
        torch.tensor([1, 2, length]),
    )
    rows, events = torch.export.Dim("rows", min=1, max=1024), torch.export.Dim("events", min=1, max=tower.place.num_embeddings)
    both, names = {0: rows, 1: events}, ["items", "kinds", "gaps", "lengths"]
    shapes: tuple[dict[int, torch.export.Dim], ...] = (both, both, both, {0: rows})
    if len(tower.heads):
        sample, names, shapes = (*sample, torch.zeros(3).long()), [*names, "surface"], (*shapes, {0: rows})
    quiet = io.StringIO()
    # torch puts a loop in the place of a GRU while it exports, and once: from then on it goes by what it had found before, and unrolls
    torch.ops.aten.gru.input._dispatch_cache.clear()
    with warnings.catch_warnings(), contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        program = torch.onnx.export(
            _Last(tower.eval()),
            sample,
            dynamo=True,
            optimize=False,  # keeps every weight under its own name and shape, so that a later release can replace it
            input_names=names,
            output_names=["user"],
            dynamic_shapes=shapes,
        )
    assert program is not None
    graph = program.model_proto
    assert all(dim.dim_param for slot in graph.graph.input for dim in slot.type.tensor_type.shape.dim[:2]), "for any B and any L"
    for node in graph.graph.node:
        del node.metadata_props[:]  # stack traces: machine paths do not belong in a release
    return graph
