"""Names of methods, with settings in parentheses: "popular,knn(nearest=300),replay(share=0.3)+ewc"."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from recsys.errors import BadInput, nearest
from recsys.written import cut, read_settings


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
    names = list(filter(None, cut(expression, ",")))
    if not names:
        raise BadInput("no method to evaluate; name some, like: popular,knn,replay+ewc")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput(f"the method {twice[0]!r} stands twice in {expression!r}; name each once")
    return names


def parts(name: str) -> list[Part]:
    """Part "replay(share=0.3)+ewc" at its plus signs."""
    return [_part(text) for text in cut(name, "+")]


def _part(text: str) -> Part:
    match = re.fullmatch(r"(\w+)\s*(?:\(([^()]*)\))?", text)
    if match is None:
        raise BadInput(f'cannot read the method {text!r}; write it like knn, "knn(nearest=300)" or "replay(share=0.3)+ewc"')
    return Part(text, match[1], read_settings(match[1], match[2] or ""))
