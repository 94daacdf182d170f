"""The settings of a strategy are those of its constructor: which there are, and what somebody has written for them."""

import ast
import inspect
import math
from dataclasses import dataclass
from typing import Any

from recsys.errors import BadInput, nearest
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


def read_settings(kind: type[Strategy], written: str) -> dict[str, Any]:
    """Read "share=0.3, by=herding"; raise BadInput for what is no setting of the strategy, or of another type than the setting."""
    known, found = settings_of(kind), dict[str, Any]()
    for part in filter(None, (part.strip() for part in written.split(","))):
        name, equals, text = (piece.strip() for piece in part.partition("="))
        if name not in known:
            if not equals and known:
                raise BadInput(f"settings are written by name, such as {kind.name}({next(iter(known))}=...); got {part!r}")
            raise BadInput(f"{kind.name} has no setting {name!r}; {nearest(name, known) if known else 'it has none'}")
        if name in found:
            raise BadInput(f"{kind.name}.{name} stands twice; say it once")
        found[name] = _value(f"{kind.name}.{name}", text, known[name].type)
    if missing := [name for name, setting in known.items() if setting.default is NEEDED and name not in found]:
        raise BadInput(f"{kind.name} needs {' and '.join(missing)}; write {kind.name}({missing[0]}=...)")
    return found


def _value(what: str, text: str, type: Any) -> Any:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        value = {"true": True, "false": False}.get(text.lower(), text)
    fits = isinstance(value, (int, float) if type is float else type) if type in TYPES else True
    if not fits or (isinstance(value, bool) and type in (int, float)) or (isinstance(value, float) and not math.isfinite(value)):
        raise BadInput(f"{what} takes {TYPES.get(type, 'a finite number')}; got {text or 'nothing'}")
    return value
