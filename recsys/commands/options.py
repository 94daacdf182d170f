"""Options that several commands have."""

from pathlib import Path
from typing import Annotated

import typer

HomeOption = Annotated[
    Path, typer.Option("--home", "-H", envvar="RECSYS_HOME", help="The folder with log/, releases/, redis/. Made when first written to.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout, and nothing else.")]
ConfigOption = Annotated[
    list[Path] | None,
    typer.Option("--config", "-c", help="A TOML file of settings (examples: configs/*.toml); H/config.toml is always read first."),
]
SetOption = Annotated[list[str] | None, typer.Option("--set", "-s", help="One setting, such as training.epochs=5; wins over every file.")]
FormatOption = Annotated[str | None, typer.Option("--format", "-f", help="The file's format, where it is not to be detected.")]
ColumnsOption = Annotated[
    str | None, typer.Option("--columns", help="What the columns are called: user_id=userId,item_id=movieId,timestamp=ts")
]
UntilOption = Annotated[
    str | None, typer.Option("--until", help="Learn only events before this moment: 2013-06-01 or 2013-06-01T12:00:00Z or unix seconds.")
]

HOME = Path(".recsys")
"""Where everything lives unless --home says otherwise."""
