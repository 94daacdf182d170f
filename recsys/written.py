"""What people write on a command line: "popular,knn(nearest=300),replay(share=0.3, by=recent)+ewc"."""

import ast
import re
from typing import Any

from recsys.errors import BadInput


def cut(text: str, separator: str) -> list[str]:
    """Cut text at each separator that stands outside parentheses."""
    return [part.strip() for part in re.split(re.escape(separator) + r"(?![^()]*\))", text)]


def read_value(text: str) -> Any:
    """Read what Python would write (3, 0.5, True, 'word'), true or false; anything else is a word. Nothing is run."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):  # all that literal_eval may raise
        return {"true": True, "false": False}.get(text.lower(), text)


def read_settings(owner: str, text: str) -> dict[str, Any]:
    """Read "share=0.3, by=recent", the settings of something; BadInput where one has no name, stands twice, or is two."""
    found: dict[str, Any] = {}
    for part in filter(None, cut(text, ",")):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not name or not equals:
            raise BadInput(f"settings are written by name, {owner}(name=value); got {part!r}")
        if ";" in value or "=" in value:
            raise BadInput(f"settings are parted by commas, {owner}(name=value, name=value); got {part!r}")
        if name in found:
            raise BadInput(f"{owner}.{name} stands twice; say it once")
        found[name] = read_value(value)
    return found
