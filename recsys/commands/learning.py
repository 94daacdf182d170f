"""Commands that learn: fit, update; and what can be chosen for it: strategies."""

import inspect
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from recsys.commands.options import HOME, ConfigOption, HomeOption, JsonOption, SetOption, UntilOption
from recsys.commands.terminal import open_place, read_settings, show
from recsys.commands.words import read_moment


def fit(
    home: HomeOption = HOME,
    until: UntilOption = None,
    config: ConfigOption = None,
    set: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Train the towers from scratch on the log and publish the release. Needed once; after that, `update`."""
    from recsys.progress import bar
    from training.job import fit_and_publish

    settings = read_settings(home, config, set)
    with bar(json) as step:
        release = fit_and_publish(open_place(home, settings), settings, read_moment(until), step)
    show(summary(release), json, release_line(release))


def update(
    home: HomeOption = HOME,
    until: UntilOption = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            help='How to remember, in this update alone: naive, "replay(share=0.3)+ewc(strength=50)", replay+adapters, ... Which there '
            "are, and their settings: recsys strategies. For good: update.strategy, in H/config.toml."
        ),
    ] = None,
    config: ConfigOption = None,
    set: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Learn what the log holds beyond the live release, and publish the next one.

    Interrupted at any point, the old release goes on serving and the command can simply be run again.
    """
    from recsys.progress import bar
    from training.job import update_and_publish
    from training.strategies import parse

    if strategy is not None:
        parse(strategy)
    settings = read_settings(home, config, [*(set or []), *([f"update.strategy={strategy}"] if strategy else [])])
    with bar(json) as step:
        release = update_and_publish(open_place(home, settings), settings, read_moment(until), step)
    if release is None:
        show({"release": None, "reason": "nothing new in the log"}, json, "nothing new in the log since the live release")
    else:
        show(summary(release), json, release_line(release))


def strategies(
    names: Annotated[
        str | None, typer.Argument(help="One, or a list such as replay+ewc, to read all about; default: all, a line each.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Say which strategies there are for updates, by what settings, and what each does; any list of them composes, joined by +.

    They are what --strategy of `recsys update` takes, update.strategy in a config file, and --methods of `recsys evaluate`.
    """
    from training.strategies import STRATEGIES, parse
    from training.strategies.settings import NEEDED, TYPES, settings_of

    chosen = [part.name for part in parse(names).parts] if names else sorted(STRATEGIES)
    about, table = list[dict[str, Any]](), Table("strategy", "settings", "what it does", box=None, padding=(0, 2, 1, 0))
    for kind in (STRATEGIES[name] for name in chosen):
        settings, does = settings_of(kind), inspect.getdoc(kind) or ""
        apart = kind.excludes | {other.name: other.excludes[kind.name] for other in STRATEGIES.values() if kind.name in other.excludes}
        usual = {key: None if each.default is NEEDED else each.default for key, each in settings.items()}
        told = {key: {"type": TYPES.get(each.type, "anything"), "default": usual[key]} for key, each in settings.items()}
        about.append({"name": kind.name, "does": does, "settings": told, "not beside": apart, "needs next_item": kind.by_event or None})
        table.add_row(kind.name, "\n".join(f"{key}={value}" for key, value in usual.items()), escape(does.split("\n\n")[0]))
    show({"strategies": about}, json, *(map(_told, about) if names else [table]))


def _told(about: dict[str, Any]) -> str:
    """Write all about one strategy."""
    settings = [f"  {key}: {each['type']}; {each['default']} where nothing is said" for key, each in about["settings"].items()]
    apart = [f"not beside {other}: {why}" for other, why in about["not beside"].items()]
    if about["needs next_item"]:
        apart.append(f"not beside model.objective = next_session: {about['needs next_item']}")
    lines = [f"{about['name']}: {about['does']}", "", *(["settings:", *settings] if settings else ["no settings"]), *apart, ""]
    return escape("\n".join(lines))


def summary(release: Any) -> dict[str, Any]:
    """Return what --json says of a release that was made."""
    return {"release": release.id, **{key: release.manifest[key] for key in ("parent", "why", "position", "metrics", "seconds", "content")}}


def release_line(release: Any) -> str:
    """Say in one line what a release has learned."""
    about = release.manifest
    heads = f", heads for {escape(', '.join(about['surfaces']))}" if about["surfaces"] else ""
    new = f" ({about['metrics']['new items']:.0f} new)" if "new items" in about["metrics"] else ""
    return (
        f"release [bold]{release.id}[/bold]: {about['metrics']['events']:,.0f} events learned by {about['strategy']}, "
        f"{about['metrics']['items']:,} items{new}{heads}, "
        f"{about['seconds']['train']:.1f} s training, {about['seconds']['write']:.1f} s writing; live"
    )
