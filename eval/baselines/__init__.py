"""What every method must be compared with, one file each: counting, rules, neighbours, matrix factorisation. No torch here."""

import inspect
from typing import Any

from eval.baselines.als import ALS
from eval.baselines.bpr import BPR
from eval.baselines.itemknn import ItemKnn
from eval.baselines.knn import Knn
from eval.baselines.popular import Popular
from eval.baselines.rules import SequentialRules
from recsys.errors import BadInput, nearest
from recsys.settings import Settings

Baseline = Popular | SequentialRules | Knn | ItemKnn | ALS | BPR

BASELINES: dict[str, type[Baseline]] = {kind.name: kind for kind in (Popular, SequentialRules, Knn, ItemKnn, ALS, BPR)}


def defaults(name: str) -> dict[str, Any]:
    """Return the settings of its own that a baseline has, with their defaults."""
    parameters = list(inspect.signature(BASELINES[name]).parameters.values())[1:]
    return {parameter.name: parameter.default for parameter in parameters}


def baseline(name: str, settings: Settings, own: dict[str, Any]) -> Baseline:
    """Make a baseline with settings of its own, as in knn(nearest=500); BadInput where it has no such setting or the value cannot be."""
    known = defaults(name)
    for key in own:
        if key not in known:
            raise BadInput(f"{name} has no setting {key!r}; {nearest(key, known)}")
    return BASELINES[name](settings, **own)


__all__ = ["ALS", "BASELINES", "BPR", "Baseline", "ItemKnn", "Knn", "Popular", "SequentialRules", "baseline", "defaults"]
