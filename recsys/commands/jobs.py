"""The periodic update from the terminal: job run, watch, log."""

import shlex
import time
from contextlib import suppress
from typing import Annotated, Any

import typer

from recsys.commands.options import HOME, ConfigOption, HomeOption, JsonOption, SetOption
from recsys.commands.terminal import complain, open_place, read_settings, show, told_to_end
from recsys.commands.trials import outcomes_since
from recsys.errors import RecsysError
from recsys.home import Home
from recsys.progress import Step
from recsys.settings import Settings


def job_run(
    home: HomeOption = HOME,
    force: Annotated[
        bool, typer.Option("--force", help="Update where anything is new, whatever the triggers say. The gate is asked all the same.")
    ] = False,
    config: ConfigOption = None,
    set: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Archive what the API took in, and update if that is due: learn it, judge the candidate, publish it or say why not.

    Of two jobs at once one works and the other ends, both with exit code 0. A refused candidate leaves the live release as it is, and what
    it learned will be learned again; after gate.alarm refusals in a row the exit code is 1.
    """
    from recsys.progress import bar

    settings = read_settings(home, config, set)
    place = open_place(home, settings)
    with bar(json) as step:
        line = _look(place, settings, force, step)
    show(line, json, _job_line(line))
    _alarm(place, settings)


def job_watch(home: HomeOption = HOME, config: ConfigOption = None, set: SetOption = None, json: JsonOption = False) -> None:
    """Do what `run` does again and again, every job.poll_seconds, until SIGTERM or Ctrl-C; one line for each update."""
    import orjson

    from recsys.progress import silent

    settings, before = read_settings(home, config, set), ""
    place = open_place(home, settings, away_is_fine=True)
    with suppress(KeyboardInterrupt):  # SIGTERM is one too: what is half done is given up, and nothing of it is live
        while True:
            began, pause = time.monotonic(), settings.job.poll_seconds
            try:
                line = _look(place, settings, False, silent)
                if line["what"] not in ("not due", before):
                    print(orjson.dumps(line).decode() if json else f"{line.get('time', '')} {_job_line(line)}", flush=True)
                if line["what"] == "refused":
                    pause = max(pause, 10 * (time.monotonic() - began))  # it may well be refused again
                    _alarm(place, settings)
                before = line["what"] if line["what"] == "superseded" else ""
            except (RecsysError, OSError) as error:  # a disk or a Redis that is away for a moment must not end the watch
                complain(str(error))
            if told_to_end:
                return
            time.sleep(pause)


def job_log(
    home: HomeOption = HOME,
    last: Annotated[int, typer.Option("--last", "-n", min=1, help="So many lines.")] = 20,
    json: JsonOption = False,
) -> None:
    """Show what the job decided and why, the newest last."""
    from recsys.journal import Journal

    lines = Journal(Home(home).job).read()[-last:]
    show(lines, json, *([f"{line['time']} {_job_line(line)}" for line in lines] or ["the job has not decided anything yet"]))


class Alarm(RecsysError):
    """So many updates in a row were refused that somebody must look."""


def _alarm(home: Home, settings: Settings) -> None:
    """Raise Alarm where too many updates in a row were refused."""
    from recsys.journal import Journal

    refusals = Journal(home.job).refusals()
    if refusals >= settings.gate.alarm:
        shown = shlex.quote(str(home.path))
        raise Alarm(
            f"{refusals} updates in a row were refused; see why: recsys job log --home {shown}; if it is the world that changed, "
            f"loosen the setting that is named there: recsys job run --force --set gate.NAME=VALUE --home {shown}"
        )


def _look(home: Home, settings: Settings, force: bool, step: Step) -> dict[str, Any]:
    """Do what the job does each time: archive, and update where that is due."""
    from datetime import datetime

    from recsys.joined import pull
    from recsys.registry import Registry

    pull(home)
    Registry(home.releases).open()  # where there is none, that is said at once, and nothing is made
    from eval.gate import judge
    from serving.archive import archive_home
    from serving.lease import Busy, lease
    from training.job import run

    archived = archive_home(home, settings)
    try:
        with lease(home.job / "lease", settings.serving.redis_url, settings.serving.tenant):
            live = Registry(home.releases).open()
            since = int(datetime.fromisoformat(live.manifest["created"]).timestamp() * 1000)
            shown = outcomes_since(home, settings, since) if settings.job.online else []
            measured = [(one.rank > 0, one.loss) for one in shown if one.variant == "live" and one.release == live.id]
            return {**run(home, settings, judge, force, step, measured), "archived": archived}
    except Busy as busy:
        return {"what": "superseded", "reason": str(busy), "archived": archived}


def _job_line(line: dict[str, Any]) -> str:
    """Say in one line what the job decided."""
    if line["what"] == "loss":
        return f"lost, in partition {line['partition']}: {line['reason']}"
    if line["what"] == "trial":
        return (
            f"release {line['release']} is on trial, {'a shadow for' if line['shadow'] else 'shown to'} {line['share']:.2%} of the people"
        )
    if line["what"] == "trial ended":
        return f"the trial of release {line['release']} is over: {line['reason']}" if line["release"] else "the trial was ended by hand"
    if line["what"] == "promoted":
        return f"release {line['release']} is live (was {line['was']}): {line['reason']}"
    if line["what"] == "backup":
        return f"copied to {line['folder']}"
    if line["what"] == "rolled back":
        return f"rolled back to release {line['release']} (was {line['was']})"
    if line["what"] == "stripped":
        return f"release {line['release']} is live (was {line['was']}): release {line['of']} without its adapters"
    if line["what"] == "not due":
        why = f"; {line['reason']}" if "reason" in line else ""
        return f"no update is due: {line['events']:,} events since release {line.get('release') or line.get('parent')}{why}"
    if line["what"] == "superseded":
        return f"superseded: {line['reason']}"
    why, held = "; ".join(line["triggers"].values()), line["held back"]
    learned = f"{line['events']:,} events, {held:,} held back, because of {why}"
    if line["what"] == "refused":
        return f"refused: {line['reason']}; release {line['parent']} stays live ({learned})"
    figures = line["gate"]["figures"]
    quality = f", ndcg@20 {figures['ndcg@20']:.4f} on the newest events (was {figures['ndcg@20 live']:.4f})" if "ndcg@20" in figures else ""
    notes = "".join(f"; {note}" for note in line["gate"]["notes"])
    now = "on trial" if line["what"] == "on trial" else "live"
    return f"release {line['release']} is {now} after {line['seconds']:.0f} s{quality}: {learned}{notes}"


def last_decision(home: Home) -> dict[str, Any] | None:
    """Return what the job decided last, and how often it was refused since it published; None where it never ran."""
    from recsys.journal import Journal

    journal = Journal(home.job)
    lines = [line for line in journal.read() if line["what"] != "backup"]
    return {"last": lines[-1]["what"], "at": lines[-1]["time"], "refused_in_a_row": journal.refusals()} if lines else None
