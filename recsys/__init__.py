"""A recommender that keeps learning: `from recsys import Recommender`."""

from importlib import import_module
from typing import Any

__all__ = ["Recommender"]


def __getattr__(name: str) -> Any:
    """Load the Recommender when it is asked for: the server imports this package and must not load torch."""
    if name == "Recommender":
        return import_module("training.recommender").Recommender
    raise AttributeError(f"module 'recsys' has no attribute {name!r}")
