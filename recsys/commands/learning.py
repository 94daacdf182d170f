"""Commands that learn: fit, update."""

from typing import Annotated, Any

import typer

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
        str | None, typer.Option(help='How to remember: naive, replay, "replay(share=0.3)+ewc(strength=50)", replay+adapters, ...')
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

    settings = read_settings(home, config, [*(set or []), *([f"update.strategy={strategy}"] if strategy else [])])
    with bar(json) as step:
        release = update_and_publish(open_place(home, settings), settings, read_moment(until), step)
    if release is None:
        show({"release": None, "reason": "nothing new in the log"}, json, "nothing new in the log since the live release")
    else:
        show(summary(release), json, release_line(release))


def summary(release: Any) -> dict[str, Any]:
    """Return what --json says of a release that was made."""
    return {"release": release.id, **{key: release.manifest[key] for key in ("parent", "why", "position", "metrics", "seconds", "content")}}


def release_line(release: Any) -> str:
    """Say in one line what a release has learned."""
    about = release.manifest
    new = f" ({about['metrics']['new items']:.0f} new)" if "new items" in about["metrics"] else ""
    return (
        f"release [bold]{release.id}[/bold]: {about['metrics']['events']:,.0f} events learned, {about['metrics']['items']:,} items{new}, "
        f"{about['seconds']['train']:.1f} s training, {about['seconds']['write']:.1f} s writing; live"
    )
