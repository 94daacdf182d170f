"""A run's figures, window by window, through Lightning's loggers: CSV and TensorBoard in the run's folder, MLflow on request."""

import logging
import math
import shutil
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, MLFlowLogger, TensorBoardLogger

from eval.run import folder_name
from recsys.errors import BadInput


class Loggers:
    """One log for each method and seed, under logs/csv and logs/tensorboard. The step is the number of the window.

    A run that goes on writes its logs anew, what was answered before with it; in MLflow it is another run.
    """

    def __init__(self, folder: Path, experiment: str, mlflow: str | None = None):
        """Open the logs. mlflow: the URI of a tracking server or database; see `mlflow_logger`."""
        shutil.rmtree(folder, ignore_errors=True)
        self.folder, self.experiment, self.mlflow = folder, experiment, mlflow
        self.open: dict[tuple[str, int], list[Logger]] = {}
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    def log(self, method: str, seed: int, window: int, figures: dict[str, float]) -> None:
        """Write the figures of one window down at once."""
        figures = {name: value for name, value in figures.items() if not math.isnan(value)}  # the diversity of a list of one
        for logger in self._of(method, seed):
            named = figures
            if isinstance(logger, MLFlowLogger):  # knows no @
                named = {name.replace("@", "_at_"): value for name, value in figures.items()}
            logger.log_metrics(named, step=window)
            logger.save()

    def close(self) -> None:
        """Say that the run is at its end."""
        for loggers in self.open.values():
            for logger in loggers:
                logger.finalize("success")

    def _of(self, method: str, seed: int) -> list[Logger]:
        if (method, seed) not in self.open:
            place: dict[str, Any] = {"name": folder_name(method), "version": f"seed{seed}"}
            both: list[Logger] = [CSVLogger(self.folder / "csv", **place), TensorBoardLogger(self.folder / "tensorboard", **place)]
            name = f"{method} seed{seed}"
            self.open[method, seed] = [*both, *([mlflow_logger(self.mlflow, self.experiment, name)] if self.mlflow else [])]
        return self.open[method, seed]


def mlflow_logger(uri: str, experiment: str = "recsys", name: str = "check") -> Logger:
    """Return a logger to an MLflow tracking URI; BadInput where the package for it is missing or the URI cannot be used."""
    try:
        return MLFlowLogger(experiment, name, uri)
    except ModuleNotFoundError:
        raise BadInput("--mlflow needs a package that is not installed; add it with: pip install -e '.[mlflow]'") from None
    except Exception as error:  # whatever MLflow raises: its own errors cannot be named where it may not be installed
        raise BadInput(f"--mlflow {uri!r} cannot be used: {str(error).splitlines()[0]}") from None
