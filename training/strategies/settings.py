"""The settings of a strategy are those of its constructor: which there are, and what somebody has written for them."""

import inspect
import math
from dataclasses import dataclass
from typing import Any

from recsys.errors import BadInput, nearest
from recsys.written import read_settings
from training.strategies.base import Strategy

TYPES: dict[Any, str] = {int: "a whole number", float: "a finite number", bool: "True or False", str: "a word"}


@dataclass(frozen=True)
class Setting:
    """One setting: its type, as the constructor says it, and what it is where nobody says; NEEDED where somebody must."""

    type: Any
    default: Any


NEEDED = inspect.Parameter.empty


def settings_of(kind: type[Strategy]) -> dict[str, Setting]:
    """Return the settings of a strategy by name, in their order."""
    given = inspect.signature(kind, eval_str=True).parameters.values()
    return {each.name: Setting(each.annotation, each.default) for each in given if each.kind is each.POSITIONAL_OR_KEYWORD}


def checked_settings(kind: type[Strategy], written: str) -> dict[str, Any]:
    """Read "share=0.3, by=herding"; raise BadInput for what is no setting of the strategy, or of another type than the setting."""
    known, found = settings_of(kind), read_settings(kind.name, written)
    for name, value in found.items():
        if name not in known:
            raise BadInput(f"{kind.name} has no setting {name!r}; {nearest(name, known) if known else 'it has none'}")
        if not _fits(value, known[name].type):
            raise BadInput(f"{kind.name}.{name} takes {TYPES.get(known[name].type, 'a finite number')}; got {value!r}")
    if missing := [name for name, setting in known.items() if setting.default is NEEDED and name not in found]:
        raise BadInput(f"{kind.name} needs {' and '.join(missing)}; write {kind.name}({missing[0]}=...)")
    return found


def _fits(value: Any, type: Any) -> bool:
    if isinstance(value, float) and not math.isfinite(value):
        return False
    if isinstance(value, bool) and type in (int, float):  # which Python takes for 0 and 1
        return False
    return type not in TYPES or isinstance(value, (int, float) if type is float else type)
