"""What can go wrong in a way the user can mend: one sentence that says what came, what was allowed and the way out."""

from collections.abc import Iterable
from difflib import get_close_matches


class RecsysError(Exception):
    """The base of every error that the command line shows as one line instead of a traceback."""


class BadInput(RecsysError):
    """A file, a value or a setting that cannot be used."""


class ReleaseNotFound(RecsysError):
    """There is no release of that name, or none at all yet."""


class ReleaseDamaged(RecsysError):
    """A file of a release is missing or is not the one that was published."""


class Refused(RecsysError):
    """A candidate that must not go live; nothing of it is, and what it learned will be learned again."""


class Superseded(RecsysError):
    """Another job published first; nothing of this one is live and nothing is lost."""


FEW = 4
"""So many allowed words are all said, also where one of them was probably meant."""


def nearest(word: str, allowed: Iterable[str]) -> str:
    """Return a hint that names what `word` was probably meant to be, or everything that is allowed; of a few words, both."""
    allowed = sorted(allowed)
    known = {each.lower(): each for each in allowed}
    close = get_close_matches(word.lower(), known, n=1, cutoff=0.6)
    meant, every = f"did you mean {known[close[0]]!r}?" if close else "", f"allowed: {', '.join(allowed)}"
    return f"{meant} {every}" if meant and 1 < len(allowed) <= FEW else meant or every
