"""Commands about releases: which there are, which one answers, what may go."""

from typing import Annotated

import typer
from rich.table import Table

from recsys.commands.learning import summary
from recsys.commands.options import HOME, HomeOption, JsonOption
from recsys.commands.terminal import named_options, open_place, out, show
from recsys.commands.words import read_share
from recsys.errors import BadInput


def releases(context: typer.Context, home: HomeOption = HOME, json: JsonOption = False) -> None:
    """List the releases, oldest first; the live one has a star, one on trial its share of the people. Of an update by the job: ndcg@20 on
    the newest events, and its parent's. A terminal of 100 columns also shows the strategy that made each.
    """
    if context.invoked_subcommand:
        if named_options(context):
            raise BadInput(f"options stand behind the whole command: recsys releases {context.invoked_subcommand} ... --home {home}")
        return
    from recsys.registry import Registry
    from recsys.trial import Trials

    registry = Registry(open_place(home, away_is_fine=True).releases)
    live, trial = registry.current(), Trials(registry.folder).now()
    found = [registry.open(id) for id in registry.ids()]
    wide = ["strategy"] if out.width >= 100 else []  # the others fit a terminal of 80 columns
    table = Table("release", "from", "created", "why", *wide, "items", "events", "ndcg@20 (was)", box=None)
    for release in found:
        about, metrics = release.manifest, release.manifest["metrics"]
        judged = about.get("gate", {}).get("figures", {})
        quality = f"{judged['ndcg@20']:.4f} ({judged['ndcg@20 live']:.4f})" if "ndcg@20" in judged else ""
        name, created = release.id, about["created"][:16].replace("T", " ")
        name += " *" if name == live else f" {trial.share:.3%}" if trial and name == trial.release else ""
        numbers = (f"{metrics['items']:,}", f"{metrics.get('events', 0):,.0f}", quality)
        table.add_row(name, about["parent"] or "-", created, about["why"], *([about.get("strategy", "")] if wide else []), *numbers)
    empty = f"no release yet; train the first with: recsys fit --home {home}"
    told = {"live": live, "trial": trial and vars(trial)}
    show({**told, "releases": [release.manifest for release in found]}, json, table if found else empty)


def strip(
    id: Annotated[str | None, typer.Argument(help="The release; default: the live one.")] = None,
    home: HomeOption = HOME,
    json: JsonOption = False,
) -> None:
    """Take away what `update --strategy adapters` has laid beside the user tower: it goes back to its base, bit for bit, items stay.

    The result is published as a release of its own and goes live; `recsys rollback` brings the adapters back. Of an older release than the
    live one, the next update learns again what came after it.
    """
    from recsys.progress import bar
    from training.job import strip_and_publish

    with bar(json) as step:
        release = strip_and_publish(open_place(home), id, step)
    show(summary(release), json, f"release [bold]{release.id}[/bold]: {release.manifest['why']}; live")


def rollback(
    id: Annotated[str | None, typer.Argument(help="The release to go back to; default: the parent of the live one.")] = None,
    home: HomeOption = HOME,
    json: JsonOption = False,
) -> None:
    """Make an older release live again: model, vocabulary, index, memory and log position together.

    The job then waits for somebody: `recsys job run --force` learns what the release has not learned, once more.
    """
    from recsys.turns import roll_back

    turn = roll_back(open_place(home), id)
    show({"live": turn.live, "was": turn.was}, json, f"live is {turn.live} (was {turn.was})")


def promote(
    id: Annotated[str | None, typer.Argument(help="The release.")] = None,
    canary: Annotated[str | None, typer.Option("--canary", help="Show it to so many of the people first, such as 5%.")] = None,
    shadow: Annotated[
        bool,
        typer.Option("--shadow", help="Show it to nobody: ask it beside the live one, for --canary of the people or 10%."),
    ] = False,
    hours: Annotated[float, typer.Option(min=0, help="After so many hours it goes live, if it has not fallen behind; 0: never.")] = 0,
    stop: Annotated[bool, typer.Option("--stop", help="End what is on trial; the live release answers everybody.")] = False,
    home: HomeOption = HOME,
    json: JsonOption = False,
) -> None:
    """Make a release live, or put it on trial.

    With --canary always the same people are shown it, and their answers name the variant. What they go on to is compared with what the
    others do (share of the plays that were in the list they had been shown): a release that is surely behind, or cannot answer, is on trial
    no longer, by itself. `recsys status` tells how the two compare.
    """
    from recsys import turns
    from recsys.registry import Registry

    place = open_place(home)
    registry = Registry(place.releases, place.shared)
    live = registry.current()
    if stop:
        if id or canary or shadow or hours:
            raise BadInput("--stop ends what is on trial, whatever that is; leave the rest out")
        ended = turns.end_trial(place)
        show({"live": live, "ended": ended}, json, f"release {live} answers everybody" if ended else "nothing is on trial")
        return
    if id is None:
        raise BadInput(f"name a release: {', '.join(registry.ids()) or 'there is none; train one with: recsys fit'}")
    if hours and (shadow or not canary):
        raise BadInput("--hours goes with --canary: a shadow never goes live by itself, and without either the release does at once")
    if canary or shadow:
        trial = turns.put_on_trial(place, id, read_share(canary or "10%"), shadow, hours)
        how = "asked beside the live one for" if shadow else "shown to"
        show({"live": live, "trial": vars(trial)}, json, f"release {id} is {how} {trial.share:.4%} of the people; see: recsys status")
        return
    turn = turns.promote(place, id)
    show({"live": turn.live, "was": turn.was}, json, f"live is {turn.live} (was {turn.was})")


def gc(
    keep: Annotated[int, typer.Option(min=1, help="So many of the newest releases stay.")] = 10,
    home: HomeOption = HOME,
    json: JsonOption = False,
) -> None:
    """Remove old releases; the live one and its parent always stay, so that a rollback works."""
    from recsys.registry import Registry

    place = open_place(home)
    registry = Registry(place.releases, place.shared)
    gone = registry.collect(keep)
    left = registry.ids()
    told = f"removed {', '.join(gone)}" if gone else "nothing to remove"
    show({"removed": gone, "left": left}, json, f"{told}; {len(left)} release{'' if len(left) == 1 else 's'} left")
