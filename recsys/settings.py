"""Every setting, its default and what it means: from configs/*.toml, RECSYS_* in the environment, the command line.

The later wins. A key that is misspelt is refused, never ignored.
"""

import json
import os
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from recsys.errors import BadInput, nearest


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Data(_Section):
    """How events become sessions and histories."""

    session_gap: float = Field(1800.0, gt=0, description="seconds of silence that end a session where the log has no session ids")
    positive: str = Field(
        "click, play, watch, complete, like, add_to_list",
        description='what says "more of this", each perhaps from a value on, such as "play, watch >= 0.5, like": the rest says nothing',
    )
    history: int = Field(50, ge=2, le=500, description="newest events of a person that the user tower sees")

    @field_validator("positive")
    @classmethod
    def _readable(cls, text: str) -> str:
        from recsys.events import positive  # brings pandas, which nobody waits for who only asks for help

        try:
            positive(text)
        except BadInput as error:
            raise ValueError(str(error)) from None
        return text


class Model(_Section):
    """The two towers."""

    dim: int = Field(128, ge=4, le=1024, description="length of a user or item vector")
    encoder: Literal["transformer", "gru", "mean"] = Field("transformer", description="how the user tower reads a history")
    objective: Literal["next_item", "next_session"] = Field(
        "next_item",
        validate_default=True,
        description="what the user tower foretells: after every event the next, or before every session all that it holds",
    )
    blocks: int = Field(1, ge=1, le=12, description="blocks of the encoder")
    heads: int = Field(2, ge=1, le=16, validate_default=True, description="attention heads; divides dim")
    dropout: float = Field(0.4, ge=0, lt=1, description="dropout on the inputs and inside the blocks")
    id_dropout: float = Field(0.1, ge=0, lt=1, description="share of items trained from their content alone")
    temperature: float = Field(0.07, gt=0, description="where the learned temperature starts")
    popularity: float = Field(1.0, ge=0, description="where the learned weight of current popularity in a score starts")
    features: int = Field(16384, ge=16, description="buckets that item content is hashed into")

    @field_validator("heads")
    @classmethod
    def _divides_dim(cls, heads: int, others: ValidationInfo) -> int:
        if others.data.get("encoder") != "gru" and others.data.get("dim", 0) % heads:
            raise ValueError(f"heads must divide model.dim, which is {others.data['dim']}")
        return heads

    @field_validator("objective")
    @classmethod
    def _can_be_blind(cls, objective: str, others: ValidationInfo) -> str:
        encoder = others.data.get("encoder", "transformer")
        if objective == "next_session" and encoder != "transformer":
            raise ValueError(f"next_session needs model.encoder = transformer, where events can be hidden from each other; it is {encoder}")
        return objective


class Training(_Section):
    """First fit, full retrain, and what an update shares with them."""

    seed: int = Field(0, ge=0, description="the same seed gives the same release")
    epochs: int = Field(6, ge=1, description="passes over the log in the first fit")
    batch_size: int = Field(128, ge=1, description="histories in one step")
    lr: float = Field(1e-3, gt=0, description="highest learning rate; it decays to a tenth")
    negatives: int = Field(4096, ge=0, description="uniform negatives in a step, beside the batch's own targets")
    full_softmax_below: int = Field(0, ge=0, description="catalogues up to this size are compared whole, as are those up to `negatives`")
    both_ways: bool = Field(True, description="learn every session from its end as well; next_session does not, as it has no order there")
    ahead: int = Field(1, ge=1, le=10, description="how many sessions are foretold at once, where the objective is next_session")
    wishes: float = Field(0.5, ge=0, le=1, description="share of targets that are drawn from what neighbours vote for")
    count_half_life: float = Field(1.0, gt=0, description="days after which a view counts half in item popularity")
    accelerator: Literal["auto", "cpu", "gpu"] = Field("auto", description="where to train")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="of the products in a step's scores; auto is bfloat16 where the processor multiplies it faster"
    )
    threads: int = Field(1, ge=1, description="CPU threads to train with; more help only where cores are idle")


class UpdateSettings(_Section):
    """One incremental update."""

    strategy: str = Field("replay+ewc", description='methods joined by +, with settings: "replay(share=0.3)+ewc(strength=100)"')
    epochs: int = Field(5, ge=1, description="passes over the new sessions")
    lr: float = Field(1e-3, gt=0, description="highest learning rate of an update")
    memory: int = Field(200_000, ge=0, description="examples kept for replay and prototypes, two of a session that is learned both ways")


class NeighbourSettings(_Section):
    """The instance memory that learns without training, fused with the towers."""

    capacity: int = Field(2_500_000, ge=1, description="newest events remembered")
    fuse: bool = Field(True, description="mix the neighbours' votes into what is recommended")
    share: float = Field(0.4, ge=0, le=0.5, description="their share of an answer until an update has measured a better one")
    popular: float = Field(0.3, ge=0, le=0.5, description="the share of what is popular in an answer, until measured too")
    fresh: float = Field(
        1.0,
        ge=0.01,
        le=100,
        description="the score of an item known for a week at most is multiplied by it; above 1 shows more of them",
    )


class Index(_Section):
    """The FAISS index of a release."""

    exact_below: int = Field(50_000, ge=0, description="catalogues smaller than this are searched exactly")
    min_recall: float = Field(0.98, gt=0, le=1, description="recall@100 under which the coarse quantiser is trained anew")


class Serving(_Section):
    """The API."""

    host: str = Field("127.0.0.1", description="address to bind")
    port: int = Field(8000, ge=0, le=65535, description="port to bind; 0 picks a free one")
    workers: int = Field(1, ge=1, le=256, description="processes that answer; each counts the rates of keys for itself")
    redis_url: str = Field("", description="redis:// or unix:// address of the profiles; empty starts an embedded server")
    tenant: str = Field("recsys", pattern=r"^[A-Za-z0-9_-]{1,64}$", description="prefix of every Redis key")
    profile_events: int = Field(200, ge=1, le=5000, description="newest events kept in a profile")
    profile_days: float = Field(180.0, gt=0, description="days after which an idle profile expires")
    appendfsync: Literal["always", "everysec"] = Field("always", description="when the embedded Redis writes to disk")
    exclude_seen: bool = Field(
        True, description="what was watched is not recommended again unless asked; where false, updates learn what people go back to"
    )
    log: Literal["text", "json"] = Field("text", description="what is written to stderr: lines for people, or JSON for machines")
    access_log: bool = Field(False, description="write a line about every request: its id, route, status and milliseconds")
    popular_hours: int = Field(6, ge=0, le=47, description="who is new sees what was liked in so many hours; 0: what the release knows")
    watch_seconds: float = Field(1.0, gt=0, description="how often to look for a new release")
    profile_seconds: float = Field(
        0.25, gt=0, le=60, description="so long a recommendation waits for Redis, then it does without the profile"
    )
    measured: float = Field(0.1, ge=0, le=1, description="share of the people whose lists are compared with what they do next; 0: nobody's")


class GateSettings(_Section):
    """What an update of the job must not do to go live: see `recsys job run`."""

    held_back: float = Field(
        0.1, ge=0, le=0.5, description="newest share of the new events that an update is judged by; the next one learns them"
    )
    questions: int = Field(5000, ge=1, description="at most so many questions are asked of both releases")
    few: int = Field(100, ge=1, description="by fewer questions nothing is concluded")
    resamples: int = Field(1000, ge=100, description="draws of the bootstrap over people")
    worse: float = Field(0.01, ge=0, le=1, description="refused where ndcg@20 on the newest events is surely lower by this share")
    slices: float = Field(0.1, ge=0, le=1, description="the same for new people, short and long histories, new and known items")
    forgets: float = Field(0.15, ge=0, le=1, description="the same for what was learned long ago, by the towers")
    coverage: float = Field(0.5, ge=0, le=1, description="refused where the lists hold fewer different items than this share")
    pushed: float = Field(5.0, ge=1, description="refused where an item comes to many by more events than this for each of its people")
    decline: float = Field(0.5, ge=0, le=1, description="refused where the newest events are foretold worse than this share of last time")
    alarm: int = Field(3, ge=1, description="after so many refusals in a row the job fails, so that somebody looks")


class JobSettings(_Section):
    """When the job updates: any of these is reason enough; 0 turns one off."""

    hours: float = Field(1.0, ge=0, description="hours after the last update, where anything is new")
    events: int = Field(50_000, ge=0, description="so many new events")
    new_items: float = Field(0.05, ge=0, le=1, description="share of the new events that are about items nobody has learned")
    drift: float = Field(0.25, ge=0, description="population stability index of event types, popularity, session lengths, unknown items")
    few: int = Field(1000, ge=1, description="by fewer new events no share and no drift is concluded")
    trial: float = Field(
        0.0, ge=0, le=0.5, description="a candidate that passed the gate is shown to this share of the people first; 0: to all at once"
    )
    trial_hours: float = Field(1.0, gt=0, description="so long; if it has not fallen behind by then, it goes live")
    online: bool = Field(True, description="drift of the online hit rate or log-loss (ADWIN) is reason enough too")
    poll_seconds: float = Field(30.0, gt=0, description="how often `recsys job watch` looks")


class StoreSettings(_Section):
    """Object storage that several machines share; each home is then a copy of it. Credentials: as usual for S3, in the environment."""

    url: str = Field("", description="s3://BUCKET/FOLDER for log, items and releases; empty: they are in the home alone")
    endpoint: str = Field("", description="address of a server that speaks S3, such as http://minio:9000; empty: Amazon's")
    look_seconds: float = Field(10.0, gt=0, description="how often a server looks for what other machines have put there")


class Settings(_Section):
    """The whole configuration of one home; a copy travels in every release."""

    data: Data = Data()
    model: Model = Model()
    training: Training = Training()
    update: UpdateSettings = UpdateSettings()
    neighbours: NeighbourSettings = NeighbourSettings()
    index: Index = Index()
    serving: Serving = Serving()
    gate: GateSettings = GateSettings()
    job: JobSettings = JobSettings()
    store: StoreSettings = StoreSettings()


def load_settings(*files: Path, overrides: dict[str, Any] | None = None, environ: dict[str, str] | None = None) -> Settings:
    """Read settings: defaults, then each file, then RECSYS_SECTION__KEY, then `overrides` ("section.key": value)."""
    merged: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for file in files:
        for section, keys in _read(file).items():
            if not isinstance(keys, dict):
                raise BadInput(f"{file}: {section!r} stands outside a section; the sections are: {', '.join(Settings.model_fields)}")
            merged.setdefault(section, {}).update(keys)
            origin |= dict.fromkeys((section, *(f"{section}.{key}" for key in keys)), str(file))
    environ = dict(os.environ) if environ is None else environ
    for name, value in environ.items():
        section, separator, key = name.removeprefix("RECSYS_").lower().partition("__")
        if name.startswith("RECSYS_") and separator:
            merged.setdefault(section, {})[key] = value
            origin |= dict.fromkeys((section, f"{section}.{key}"), f"environment: {name}")
    if environ.get("RECSYS_REDIS_URL"):
        merged.setdefault("serving", {})["redis_url"] = environ["RECSYS_REDIS_URL"]
    for name, value in (overrides or {}).items():
        section, _, key = name.partition(".")
        merged.setdefault(section, {})[key] = value
        origin |= dict.fromkeys((section, name), "settings")
    return _validated(merged, origin)


def as_toml(settings: Settings) -> str:
    """Write settings the way a config file reads."""
    lines = []
    for section, keys in settings.model_dump().items():
        lines += [f"[{section}]", *(f"{key} = {_toml(value)}" for key, value in keys.items()), ""]
    return "\n".join(lines)


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text())
    except FileNotFoundError:
        raise BadInput(f"there is no config file {file}; the ones that come with the project are in configs/") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise BadInput(f"{file} is not TOML: {error}") from None


def _validated(merged: dict[str, Any], origin: dict[str, str]) -> Settings:
    try:
        return Settings.model_validate(merged)
    except ValidationError as error:
        first = error.errors()[0]
        path = [str(part) for part in first["loc"]]
        source = origin.get(".".join(path[:2]), "settings")
        if first["type"] != "extra_forbidden":
            wish = first["msg"].removeprefix("Value error, ")
            raise BadInput(f"{source}: {'.'.join(path)} = {first['input']!r}: {wish[0].lower()}{wish[1:]}") from None
        fields = Settings.model_fields if len(path) == 1 else type(getattr(Settings(), path[0])).model_fields
        raise BadInput(f"{source}: there is no setting {'.'.join(path)!r}; {nearest(path[-1], fields)}") from None


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
