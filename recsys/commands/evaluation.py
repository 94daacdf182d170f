"""Commands that measure: evaluate, estimate, tune; and the demo, which does everything once."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from recsys.commands.options import HOME, ConfigOption, HomeOption, JsonOption, SetOption
from recsys.commands.terminal import err, named_options, out, read_settings, refuse_unwritable, show
from recsys.commands.words import read_numbers, read_seconds
from recsys.errors import BadInput
from recsys.home import Home


def evaluate(
    context: typer.Context,
    data: Annotated[
        list[Path] | None, typer.Option("--data", help="Event files, or the folder of period files for --protocol ader.")
    ] = None,
    items: Annotated[list[Path] | None, typer.Option("--items", help="Item metadata files that go with --data.")] = None,
    home: Annotated[
        Path | None, typer.Option("--home", "-H", envvar="RECSYS_HOME", help="Replay this home's log instead of files.")
    ] = None,
    protocol: Annotated[
        str,
        typer.Option(
            help="prequential: every event of a time window is foretold from its owner's history; next-session: all items of a session, "
            "at its start; ader: every click of weekly period files."
        ),
    ] = "prequential",
    window: Annotated[str, typer.Option(help="Length of a window: 7d, 12h, 30m.")] = "7d",
    train: Annotated[int, typer.Option(min=1, help="Windows that the first fit learns from.")] = 8,
    cycles: Annotated[int | None, typer.Option(min=1, help="At most so many windows or cycles are answered; default: all.")] = None,
    methods: Annotated[
        str,
        typer.Option(
            help="Comma-separated: baselines (popular, rules, knn, itemknn, als, bpr), frozen, recounted, retrain, window, or any strategy "
            "(see: recsys strategies), joined by +; +dropout for more of it in updates, +neighbours for the fused answer that is served. "
            "Settings stand in parentheses, such as knn(nearest=300). all: every baseline, every strategy, and "
            "compositions.",
            show_default="popular, knn, als, frozen, naive, replay+ewc, the same fused (+neighbours), retrain",
        ),
    ] = "popular,knn,als,frozen,naive,replay+ewc,replay+ewc+neighbours,retrain",
    k: Annotated[str, typer.Option("--k", help="Lengths of the lists, comma-separated.")] = "10,20",
    seeds: Annotated[int, typer.Option(min=1, help="Run methods that draw lots under so many seeds, from training.seed on.")] = 1,
    baseline: Annotated[str | None, typer.Option(help="The method that the others are compared with; default: the first.")] = None,
    include_seen: Annotated[bool, typer.Option("--include-seen", help="Let methods recommend what the person already had.")] = False,
    filter_unseen: Annotated[bool, typer.Option("--filter-unseen", help="Leave out targets that no window before held.")] = False,
    matrix: Annotated[
        bool | None,
        typer.Option(
            "--matrix/--no-matrix",
            help="Score each release on all windows, to see what is forgotten; default: where they are 40 or fewer.",
        ),
    ] = None,
    config: ConfigOption = None,
    set: SetOption = None,
    run: Annotated[
        Path | None,
        typer.Option("--run", help="The folder that answers are kept in; default: one for this question in HOME/reports."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with a run that was stopped, or add --methods or --seeds to one. Which: --run, or the newest of the home. What is "
            "not said again stays as it was asked.",
        ),
    ] = False,
    anew: Annotated[bool, typer.Option("--anew", help="Throw the answers away that --run holds to this question, and start over.")] = False,
    report: Annotated[Path | None, typer.Option("--report", help="Write one HTML file with pictures.")] = None,
    mlflow: Annotated[str | None, typer.Option("--mlflow", help="Log to this MLflow tracking URI too; needs the extra `mlflow`.")] = None,
    json: Annotated[Path | None, typer.Option("--json", help="Write the results to this file; - prints them.")] = None,
) -> None:
    """Replay a log: every window is answered before it is learned, by every method, over the full catalogue.

    Every answer is kept in the run's folder as soon as there is one: a run that is stopped goes on with --resume, and of one that has
    finished --resume works out the figures again, without a replay.

    Towers that are no strategy: frozen never learns again; recounted goes on counting what is popular and places new items, without a step
    of training; retrain learns everything anew in every window, retrain(every=4) in every fourth and is frozen in between; window(n=4)
    learns the newest four windows anew each time. naive updates on what is new alone.
    """
    import torch

    from eval.command import Question, run_to_resume, write
    from eval.command import evaluate as answer
    from eval.methods import spelled
    from eval.table import table
    from recsys.progress import bar

    quiet = str(json) == "-"
    if resume and anew:
        raise BadInput("--resume goes on, --anew starts over; take one of them")
    if items and not data:
        raise BadInput("--items goes with --data; a home has its own, added with: recsys import --items")
    given = named_options(context)
    if protocol == "ader" and (ignored := given & {"window", "train", "include_seen", "filter_unseen", "items"}):
        named = ", ".join("--" + name.replace("_", "-") for name in sorted(ignored))
        raise BadInput(f"--protocol ader has its own rules; leave out {named}")
    for option, path in (("--report", report), ("--json", None if quiet else json)):
        refuse_unwritable(option, path)
    settings = read_settings(home, config, set)
    question = Question(
        protocol=protocol,
        data=tuple(data or ()),
        items=tuple(items or ()),
        home=home,
        window=read_seconds(window),
        train=train,
        cycles=cycles,
        methods=spelled(methods),
        ks=tuple(read_numbers(k)),
        exclude_seen=settings.serving.exclude_seen and not include_seen,
        filter_unseen=filter_unseen,
        seeds=seeds,
        matrix=matrix,
        settings=settings,
    )
    if resume:
        run = run_to_resume(run, home)
        question = question.beside(Question.of_run(run), given)
    torch.set_num_threads(question.settings.training.threads)  # pools that fight over the cores cost more than they bring
    folder: list[Path] = []

    try:
        with bar(quiet) as step:
            found = answer(question, shlex.join(["recsys", *sys.argv[1:]]), run, resume, baseline, mlflow, folder.append, step, anew)
    except KeyboardInterrupt:
        if folder:
            line = shlex.join(["recsys", "evaluate", "--run", str(folder[0]), "--resume"])
            err.print(f"stopped; what is answered is kept. To go on: {line}", style="yellow", soft_wrap=True, highlight=False)
            raise typer.Abort from None
        raise
    if json and not quiet:
        write(found, json)
    if report:
        from eval.report.page import write as draw

        draw(found, report)
    written = [f"{name}: {path}" for name, path in (("report", report), ("results", json)) if path and not quiet]
    show(found, quiet, table(found, out.width), *written, f"every answer is kept in {folder[0]}")


def estimate(
    id: Annotated[str, typer.Argument(help="The release to judge, such as 000007; the live one stands beside it.")],
    home: HomeOption = HOME,
    window: Annotated[str, typer.Option(help="What somebody does within this after a list was shown was earned by it: 30m, 1h.")] = "1h",
    clip: Annotated[
        float | None, typer.Option(min=1, help="The largest weight of a place; default: the root of the number of places.")
    ] = None,
    lists: Annotated[int, typer.Option(min=1, help="At most so many lists, the newest.")] = 10_000,
    config: ConfigOption = None,
    set: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Estimate what a release would have earned on the lists that were explored, from their logged propensities; beside the live release.

    A place earns 1 where its item is played, liked, ... and the list's request_id comes with that, or none and it is within the window.
    Lists that either release has learned, or that cannot be made again from the log, are left out and counted.
    """
    from eval.estimate import estimate as work_out
    from eval.estimate import remarks, table
    from recsys.progress import bar

    with bar(json) as step:
        found = work_out(Home(home), read_settings(home, config, set), id, read_seconds(window), clip, lists, step)
    show(found, json, table(found), *remarks(found))


def tune(
    method: Annotated[str, typer.Option(help='What to tune, such as knn, "als(factors=128)" or replay+ewc.')],
    data: Annotated[
        list[Path] | None, typer.Option("--data", help="Event files, or the folder of period files for --protocol ader.")
    ] = None,
    items: Annotated[list[Path] | None, typer.Option("--items", help="Item metadata files that go with --data.")] = None,
    home: Annotated[
        Path | None, typer.Option("--home", "-H", envvar="RECSYS_HOME", help="Tune on this home's log instead of files.")
    ] = None,
    space: Annotated[
        str | None,
        typer.Option(help='What to search: "nearest=100..1000, fading=0.5..8log, training.lr=1e-4..1e-2log, model.encoder=gru|mean".'),
    ] = None,
    metric: Annotated[str, typer.Option(help="What is to be high: recall@20, ndcg@20, mrr@10, ...")] = "recall@20",
    trials: Annotated[int, typer.Option(min=1, help="How many settings to try, with those of an earlier run.")] = 30,
    protocol: Annotated[str, typer.Option(help="As in the coming evaluation: prequential, next-session or ader.")] = "prequential",
    window: Annotated[str, typer.Option(help="Length of a window: 7d, 12h, 30m.")] = "7d",
    train: Annotated[
        int | None,
        typer.Option(min=2, help="Windows, or periods, before the first test window: nothing later is seen. Default: 8; ader: 3."),
    ] = None,
    validate: Annotated[int, typer.Option(min=1, help="The last so many of them are answered, the others learned from.")] = 2,
    every: Annotated[int, typer.Option(min=1, help="Ask only every so-manieth question; a search is quicker so.")] = 1,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same search.")] = 0,
    include_seen: Annotated[bool, typer.Option("--include-seen", help="Let methods recommend what the person already had.")] = False,
    filter_unseen: Annotated[bool, typer.Option("--filter-unseen", help="Leave out targets that no window before held.")] = False,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", help="Where the trials are kept; the same command goes on where it stopped. Default: .tune/METHOD."),
    ] = None,
    config: ConfigOption = None,
    set: SetOption = None,
    json: JsonOption = False,
) -> None:
    """Search settings of one method on the windows before the first test window. Needs the extra `tune` (Optuna).

    The best is printed as a line for `recsys evaluate`; every trial is in FOLDER/trials.json.
    """
    import torch

    from eval.command import Question
    from eval.run import folder_name
    from eval.tune import run
    from recsys.progress import bar

    settings = read_settings(home, config, set)
    torch.set_num_threads(settings.training.threads)
    question = Question(
        protocol=protocol,
        data=tuple(data or ()),
        items=tuple(items or ()),
        home=home,
        window=read_seconds(window),
        train=train or (3 if protocol == "ader" else 8),
        cycles=None,
        methods=method,
        ks=(20,),
        exclude_seen=settings.serving.exclude_seen and not include_seen,
        filter_unseen=filter_unseen,
        seeds=1,
        matrix=False,
        settings=settings,
    )
    with bar(json) as step:
        try:
            tuned = run(question, space, metric, folder or Path(".tune") / folder_name(method), validate, every, seed, trials, step)
        except KeyboardInterrupt:
            err.print("stopped; the trials so far are kept, and the same command goes on from them", style="yellow", soft_wrap=True)
            raise
    show(tuned.as_dict(), json, tuned.table(), tuned.line())


def demo(
    home: Annotated[Path, typer.Option("--home", "-H", help="A folder of the demo's own; it is emptied first.")] = Path(".demo"),
    json: JsonOption = False,
) -> None:
    """Show the whole system on a real log: import, fit, update week by week, evaluate, serve, tap. What `make demo` runs."""
    from recsys.demo import run

    show(run(home, quiet=json), json)
