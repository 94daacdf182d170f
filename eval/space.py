"""Which values of which settings are searched: "nearest=100..1000,fading=0.5..8log,model.encoder=gru|mean"."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eval import baselines, names
from recsys.errors import BadInput
from recsys.written import read_value

if TYPE_CHECKING:
    import optuna

_TOWERS = "training.lr=5e-4..4e-3log,model.dropout=0.1..0.6,model.temperature=0.04..0.1log"
_UPDATES = "update.lr=2e-4..2e-3log,update.epochs=2..12"
SPACES = {
    "popular": "half_life=0.5..60log",
    "rules": "steps=1..50log,newest=1..20log,fading=0.3..20log,half_life=3.0..300log,popularity=0.1..30log",
    "itemknn": "shrink=1.0..100log,newest=1..30log,fading=0.3..20log,half_life=3.0..300log,popularity=0.1..30log",
    "knn": "nearest=50..1500log,newest=3..30log,fading=0.5..10log,days=1.0..300log,popularity=0.1..30log,returning=1.0..400log",
    "als": "factors=16..256log,regularization=0.01..30log,alpha=1.0..300log,iterations=5..30log,rounds=1..3,"
    "newest=2..100log,fading=0.5..100log,popularity=1.0..300log",
    "bpr": "factors=16..256log,learning_rate=0.02..0.3log,regularization=1e-3..0.1log,iterations=20..300log,update_iterations=5..60log,"
    "newest=2..30log,fading=0.5..20log,steps=1..40log,rate=0.2..5log,popularity=1.0..1000log",
    "replay": "replay.share=0.2..0.8",
    "ewc": "ewc.strength=0.1..1000log",
    "distill": "distill.weight=0.1..10log,distill.temperature=0.5..4log",
    "ader": "ader.weight=0.1..10log",
    "agem": "agem.samples=32..512log",
    "gem": "gem.margin=0.0..1",
    "der": "der.weight=1e-3..1log",
    "surprise": "surprise.strength=0.1..2log,surprise.most=1.2..10log",
    "heads": "heads.least=20..2000log",
    "partial": "partial.buckets=2..8",
    "ema": "ema.decay=0.1..0.8",
    "soup": "soup.last=2..6",
    "generate": "generate.share=0.2..0.8,generate.length=3..20",
    "adapters": "adapters.rank=2..32log,adapters.alpha=1.0..64log",
}
"""Where to search when nothing is said, by method; of strategies joined by + all of theirs, beside what all towers share."""


@dataclass(frozen=True)
class Range:
    """Values of one setting: from `low` to `high`, whole numbers or not, evenly in their logarithm or not; or the `choices`."""

    low: float = 0
    high: float = 0
    log: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def whole(self) -> bool:
        return not self.choices and isinstance(self.low, int) and isinstance(self.high, int)

    def __contains__(self, value: Any) -> bool:
        if self.choices:
            return value in self.choices
        return isinstance(value, (int, float)) and self.low <= value <= self.high and not (self.whole and value % 1)

    def __str__(self) -> str:
        return "|".join(map(str, self.choices)) if self.choices else f"{self.low}..{self.high}{'log' if self.log else ''}"

    def rounded(self, value: Any) -> Any:
        """Return a value with three digits, as one would write it, but not outside the range."""
        if not isinstance(value, float) or self.choices:
            return value
        return min(max(float(f"{value:.3g}"), self.low), self.high)

    def distribution(self) -> "optuna.distributions.BaseDistribution":
        from optuna import distributions

        if self.choices:
            return distributions.CategoricalDistribution(self.choices)
        if self.whole:
            return distributions.IntDistribution(int(self.low), int(self.high), log=self.log)
        return distributions.FloatDistribution(self.low, self.high, log=self.log)


def space_for(method: str) -> str:
    """Return where a method is searched when nothing is said."""
    parts = [part.name for part in names.parts(method)]
    if parts[0] in baselines.BASELINES:
        return SPACES[parts[0]]
    from training.strategies import STRATEGIES

    updated = [_UPDATES] if any(part in STRATEGIES for part in parts) else []
    return ",".join([_TOWERS, *updated, *(SPACES[part] for part in parts if part in SPACES)])


def parse_space(text: str) -> dict[str, Range]:
    """Read "nearest=100..1000,fading=0.5..8log,model.encoder=gru|mean"."""
    space = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, values = (piece.strip() for piece in part.partition("="))
        if name in space:
            raise BadInput(f"{name!r} stands twice in the space; name each setting once")
        space[name] = _range(name, values)
    if not space:
        raise BadInput('nothing to search; write a space like --space "nearest=100..1000,fading=0.5..8log"')
    return space


def _range(name: str, values: str) -> Range:
    wrong = BadInput(f"cannot read {name}={values!r}; write {name}=LOW..HIGH, {name}=LOW..HIGHlog or {name}=ONE|OTHER")
    if not name or not values:
        raise wrong
    if ".." not in values:
        if "|" not in values:
            raise wrong
        return Range(choices=tuple(read_value(value.strip()) for value in values.split("|")))
    low, high = (read_value(end.strip()) for end in values.removesuffix("log").split("..", 1))
    if not all(isinstance(end, (int, float)) for end in (low, high)):
        raise wrong
    log = values.endswith("log")
    if not low < high or (log and low <= 0):
        raise BadInput(f"{name}={values}: the low end must be below the high one{', and above 0 for a logarithm' if log else ''}")
    return Range(low, high, log)
