"""What options say, read: moments, lengths of time, shares, numbers, name=value."""

from recsys.errors import BadInput


def read_pairs(text: str | None) -> dict[str, str]:
    """Read a=b,c=d."""
    return read_each_pair(text.split(",")) if text else {}


def read_each_pair(texts: list[str]) -> dict[str, str]:
    """Read a list of name=value."""
    pairs = [text.strip().partition("=") for text in texts]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise BadInput(f"cannot read {name!r}; write name=value")
    return {name.strip(): value.strip() for name, _, value in pairs}


def read_moment(text: str | None) -> int | None:
    """Read a moment as ms since 1970."""
    if text is None:
        return None
    from datetime import UTC, datetime

    try:
        seconds = float(text)
    except ValueError:
        seconds = None
    try:
        moment = datetime.fromisoformat(text) if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        raise BadInput(f"--until {text!r} is not a moment; write 2013-06-01, 2013-06-01T12:00:00Z or unix seconds") from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def read_seconds(text: str) -> float:
    """Read a length of time, such as 30m or 7d, as seconds."""
    units = {"m": 60, "h": 3600, "d": 86_400, "w": 604_800}
    try:
        length = float(text[:-1]) * units[text[-1]]
    except (KeyError, ValueError, IndexError):
        raise BadInput(f"--window {text!r} is no number of minutes, hours, days or weeks; write 30m, 12h, 7d or 2w") from None
    if not 0 < length < 1e10:
        raise BadInput(f"--window {text!r} must be more than 0 and less than 300 years")
    return length


def read_numbers(text: str) -> list[int]:
    """Read whole numbers from 1 on, such as 10,20; return each once, ascending."""
    try:
        numbers = sorted({int(part) for part in text.split(",")})
    except ValueError:
        numbers = []
    if not numbers or numbers[0] < 1:
        raise BadInput(f"--k {text!r} must be whole numbers from 1 on, such as 10,20")
    return numbers


def read_share(text: str) -> float:
    """Read a share: 5%, or 0.05."""
    try:
        return float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        raise BadInput(f"--canary {text!r} is no share of the people; write 5% or 0.05") from None
