"""Names of methods, with settings in parentheses: "popular,knn(nearest=300),replay(share=0.3)+ewc"."""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from recsys.errors import BadInput, nearest


@dataclass(frozen=True)
class Part:
    """One word of a name with its settings: the text "replay(share=0.3)" has the name "replay" and of its own {"share": 0.3}."""

    text: str
    name: str
    own: dict[str, Any] = field(default_factory=dict)

    def settings(self, defaults: Mapping[str, Any]) -> dict[str, Any]:
        """Return its settings, those it does not name from `defaults`; BadInput where it names one that is not there."""
        for key in self.own:
            if key not in defaults:
                raise BadInput(f"{self.name} has no setting {key!r}; {nearest(key, defaults) if defaults else 'it has none'}")
        return {**defaults, **self.own}


def listed(expression: str) -> list[str]:
    """Part "a,b(x=1,y=2)+c" at its commas; each name may stand there once."""
    names = _split(expression, ",")
    if not names:
        raise BadInput("no method to evaluate; name some, like: popular,knn,replay+ewc")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput(f"the method {twice[0]!r} stands twice in {expression!r}; name each once")
    return names


def parts(name: str) -> list[Part]:
    """Part "replay(share=0.3)+ewc" at its plus signs."""
    return [_part(text) for text in _split(name, r"\+")]


def _split(text: str, separator: str) -> list[str]:
    """Cut text at a separator that stands outside parentheses."""
    return [part.strip() for part in re.split(separator + r"(?![^()]*\))", text) if part.strip()]


def _part(text: str) -> Part:
    match = re.fullmatch(r"(\w+)\s*(?:\(([^()]*)\))?", text)
    if match is None:
        raise BadInput(f'cannot read the method {text!r}; write it like knn, "knn(nearest=300)" or "replay(share=0.3)+ewc"')
    own = {}
    for argument in _split(match[2] or "", ","):
        key, _, value = (piece.strip() for piece in argument.partition("="))
        try:
            own[key] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            raise BadInput(f"{match[1]}.{key} = {value!r} is not a value; write a number or a quoted word") from None
    return Part(text, match[1], own)
