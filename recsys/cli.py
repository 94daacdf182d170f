"""The `recsys` command: which commands there are, and how each begins and ends."""

import signal
import sys

import typer

from recsys.commands import data, evaluation, homes, jobs, learning, releases, servers
from recsys.commands.terminal import INTERRUPTED, complain, err, interrupt
from recsys.errors import RecsysError

# Imports of the rooms stand inside the commands: `recsys --help` must not wait for torch.

app = typer.Typer(
    name="recsys",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="A recommender that keeps learning. Everything lives under one folder, --home.\n\n"
    "A first round:  recsys import ratings.csv,  recsys fit,  recsys serve;  then, whenever the log has grown:  recsys update.",
)
data_app = typer.Typer(no_args_is_help=True, help="Public data sets to try things on.")
app.add_typer(data_app, name="data")
keys_app = typer.Typer(
    no_args_is_help=True,
    help="API keys. While a home has none, `recsys serve` listens on this machine alone and lets everybody in; from the first key on, "
    "every request needs one.",
)
app.add_typer(keys_app, name="keys")
job_app = typer.Typer(
    no_args_is_help=True,
    help="The periodic update: look whether one is due, learn, let the gate judge, publish. `run` looks once, for cron, systemd or "
    "Kubernetes; `watch` goes on looking. The settings job.* say when, gate.* what must not go live.",
)
app.add_typer(job_app, name="job")

releases_app = typer.Typer(help="The releases: which there are; and one without what adapters have taught it.")
app.add_typer(releases_app, name="releases")

# as `recsys --help` lists them
app.command("import")(data.import_)
app.command()(data.validate)
app.command()(data.simulate)
app.command()(learning.fit)
app.command()(learning.update)
app.command()(learning.strategies)
app.command()(releases.rollback)
app.command()(releases.promote)
app.command()(releases.gc)
app.command()(homes.backup)
app.command()(homes.restore)
app.command()(homes.forget)
app.command()(homes.status)
app.command()(servers.serve)
app.command()(servers.rules)
app.command()(servers.archive)
app.command()(evaluation.evaluate)
app.command()(evaluation.estimate)
app.command()(evaluation.tune)
app.command()(evaluation.demo)

data_app.command("get")(data.data_get)
releases_app.callback(invoke_without_command=True)(releases.releases)
releases_app.command()(releases.strip)
keys_app.command("add")(servers.keys_add)
keys_app.command("list")(servers.keys_list)
keys_app.command("remove")(servers.keys_remove)
job_app.command("run")(jobs.job_run)
job_app.command("watch")(jobs.job_watch)
job_app.command("log")(jobs.job_log)


def main() -> None:
    """Run the command; what the user can mend is one line on stderr and exit code 1."""
    signal.signal(signal.SIGTERM, interrupt)
    try:
        code = app(standalone_mode=False, prog_name="recsys") or 0
        if code == INTERRUPTED:
            err.print("interrupted; nothing half-done is live", style="yellow")
        sys.exit(code)
    except typer.Abort:
        sys.exit(INTERRUPTED)
    except RecsysError as error:
        complain(str(error))
        sys.exit(1)
    except OSError as error:
        complain(f"{error.strerror or error}: {error.filename}" if error.filename else str(error))
        sys.exit(1)
    except Exception as error:
        if not hasattr(error, "format_message"):  # click's own complaints about the command line
            raise
        if what := error.format_message().rstrip("."):  # nothing where the help was asked for by naming no command
            context = getattr(error, "ctx", None)
            complain(f"{what} (see: {context.command_path if context else 'recsys'} --help)")
        sys.exit(2)


if __name__ == "__main__":
    main()
