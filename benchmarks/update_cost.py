"""What an update costs against a full retrain, when the newest 2% of a log are new."""

import numpy as np

from benchmarks.measure import Figure, scratch, seconds
from recsys.catalogue import Catalogue
from recsys.events import milliseconds as times
from recsys.home import Home
from recsys.log import Log
from recsys.sessions import of_the_same_people
from recsys.settings import load_settings
from recsys.simulate import simulate
from training.fit import fit
from training.update import update


def run(quick: bool = False) -> list[Figure]:
    """Fit on 98% of a simulated log, update with the rest by the default strategy, and fit on everything."""
    users, items, days = (300, 200, 30) if quick else (1500, 600, 60)
    settings = load_settings(environ={}, overrides={"training.epochs": 2, "update.epochs": 1} if quick else None)
    with scratch() as folder:
        home = Home(folder)
        simulate(home, users=users, items=items, days=days)
        events, catalogue = Log(home.log).read(), Catalogue(home.items).items()
    events = events.take(np.argsort(times(events), kind="stable"))
    cut = round(len(events) * 0.98)
    past, new = events.slice(0, cut), events.slice(cut)
    parent = fit(past, settings, catalogue)
    cost = seconds(lambda: update(parent, new, of_the_same_people(past, new), settings, catalogue))
    full = seconds(lambda: fit(events, settings, catalogue))
    what = f"update by {settings.update.strategy} with {len(new):,} of {len(events):,} events"
    return [Figure(what, cost, "s", full, "full fit on everything (less than 1 is the point)")]
