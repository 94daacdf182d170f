"""Which release answers, by somebody's hand: promoted, put on trial, gone back from. The command and the API both do it here."""

from dataclasses import dataclass

from recsys.errors import BadInput
from recsys.home import Home
from recsys.journal import Journal
from recsys.registry import Registry
from recsys.trial import Trial, Trials


@dataclass(frozen=True)
class Turn:
    """The release that is live now, and the one that was."""

    live: str
    was: str | None


def promote(home: Home, id: str) -> Turn:
    """Make a release live at once; what was on trial is so no longer."""
    registry = Registry(home.releases, home.shared)
    live = registry.current()
    if id == live:
        raise BadInput(f"release {id} is live already")
    registry.open(id).verify()
    registry.point_to(id)
    Trials(home.releases).end()
    Journal(home.job).add("promoted", release=id, was=live, reason="by hand")
    return Turn(id, live)


def put_on_trial(home: Home, id: str, share: float, shadow: bool = False, hours: float = 0.0) -> Trial:
    """Show a release to a share of the people first or, as a shadow, to nobody (see Trial); what was on trial is so no longer."""
    registry, journal, trials = Registry(home.releases, home.shared), Journal(home.job), Trials(home.releases)
    release = registry.open(id).verify()
    if id == registry.current():
        others = ", ".join(other for other in registry.ids() if other != id) or "none"
        raise BadInput(f"release {id} is live already; a trial is for another one: {others}")
    before = trials.now()
    trial = trials.begin(release.id, share, shadow, hours)
    if before:
        journal.add("trial ended", release=before.release, reason=f"release {id} took its place")
    journal.add("trial", release=id, share=trial.share, shadow=shadow, hours=hours)
    return trial


def end_trial(home: Home) -> bool:
    """End what is on trial, whatever that is; say whether anything was."""
    ended = home.releases.exists() and Trials(home.releases).end()
    if ended:
        Journal(home.job).add("trial ended", release=None, reason="by hand")
    return ended


def roll_back(home: Home, id: str | None = None) -> Turn:
    """Make an older release live again, by default the parent of the live one: model, vocabulary, index, memory, log position together."""
    registry = Registry(home.releases, home.shared)
    live = registry.current()
    named = id
    id = id or registry.open().manifest["parent"]  # with a name, the live one need not be readable
    if id is None:
        others = ", ".join(id for id in registry.ids() if id != live)
        raise BadInput(f"release {live} has no parent to go back to; {f'name one of: {others}' if others else 'there is no other'}")
    if named is None and id not in (ids := registry.ids()):
        left = ", ".join(other for other in ids if other != live) or "none"
        raise BadInput(f"release {live} came from {id}, which is gone (recsys gc?); name one of those that are left: {left}")
    registry.open(id).verify()
    Journal(home.job).add("rolled back", release=id, was=live)  # first: else, killed in between, the job would go on from there
    registry.point_to(id)
    return Turn(id, live)
