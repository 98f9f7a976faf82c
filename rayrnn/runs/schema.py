"""What the files of a run directory may hold: whoever reads one has it checked here first, for it may be anybody's."""

import base64
import re
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import pydantic
from pydantic import Field, StringConstraints

from rayrnn.data.encoding import VERSION
from rayrnn.data.units import check_pieces
from rayrnn.errors import RunError
from rayrnn.foreign import read_inside

#: bytes of one JSON file; a vocabulary of a million words has some twenty
MOST_JSON = 64 * 2**20
#: of a count, so that sums of some stay exact in float64 and in 64 bits
LARGEST = 2**53
#: symbols, classes, or features
MOST_NAMES = 10_000_000

Count = Annotated[int, Field(ge=0, le=LARGEST)]
Strings = Annotated[tuple[str, ...], Field(max_length=MOST_NAMES)]
CHECKPOINT_FILE = r"(?:(?:model|outer|optimizer-\d+)\.safetensors|progress\.json)"


class Stored(pydantic.BaseModel):
    """A JSON object of a run: these keys and no others, each of its own type."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


Kind = TypeVar("Kind", bound=Stored)


def read_stored(folder: Path, name: str, kind: type[Kind], *, what: str = "") -> Kind:
    """One of the files of a run, through no link, checked.

    Args:
        what: the file as messages call it; without it its path.

    Raises:
        FileNotFoundError: it is not there.
        RunError: it cannot be read, or holds something else; names the file and the key.
    """
    try:
        content = read_inside(folder, name, most=MOST_JSON)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise RunError(f"{what or folder / name} cannot be used: {error.strerror}") from None
    return checked(content, kind, what or str(folder / name))


def checked(content: bytes, kind: type[Kind], what: str) -> Kind:
    """
    Raises:
        RunError: the JSON text `content` of the file `what` is none of this kind; names the key.
    """
    try:
        return kind.model_validate_json(content)
    except pydantic.ValidationError as error:
        raise RunError(f"{what} cannot be used: {_faults(error)}") from None


def _faults(error: pydantic.ValidationError) -> str:
    """The first few, each with its key."""
    faults = error.errors(include_url=False, include_context=False)
    said = [_fault(fault) for fault in faults[:3]]
    return "; ".join([*said, f"and {len(faults) - 3} more"] if len(faults) > 3 else said)


def _fault(fault: Any) -> str:
    key = ".".join(str(part) for part in fault["loc"])
    reason = fault["msg"].removeprefix("Value error, ")
    value = repr(fault["input"])
    shown = "" if fault["type"] in ("missing", "json_invalid") or len(value) > 60 else f" is {value}"
    return f'key "{key}"{shown}: {reason}' if key else reason


class StoredSymbols(Stored):
    """One symbol of a vocabulary."""

    kind: Literal["symbols"]
    vocabulary: Annotated[Strings, Field(min_length=1)]
    #: how a text becomes symbols; rayrnn 0.1 did not tell it
    units: Literal["characters", "words", "pieces"] | None = None
    #: sentencepiece's model, in base64
    pieces: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]+={0,2}$")] | None = None
    longest: Count = 0

    @pydantic.model_validator(mode="after")
    def _can_cut(self) -> "StoredSymbols":
        if (self.units == "pieces") != (self.pieces is not None):
            raise ValueError("pieces go with units pieces, and units pieces with pieces")
        if self.pieces is not None:
            check_pieces(base64.b64decode(self.pieces))
        return self

    @pydantic.model_validator(mode="after")
    def _once(self) -> "StoredSymbols":
        return _distinct(self, vocabulary=self.vocabulary)


class StoredScaling(Stored):
    """What is taken from every feature, and what it is then divided by."""

    kind: Literal["none", "standardize", "min_max"]
    shift: Annotated[tuple[float, ...], Field(max_length=MOST_NAMES)]
    scale: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(max_length=MOST_NAMES)]

    @pydantic.model_validator(mode="after")
    def _as_many(self) -> "StoredScaling":
        if len(self.shift) != len(self.scale):
            raise ValueError(f"shift has {len(self.shift)} numbers, scale {len(self.scale)}")
        return self


class StoredNumbers(Stored):
    """Features that are numbers, and categorical ones."""

    kind: Literal["numbers"]
    scaling: StoredScaling
    categories: Annotated[tuple[Strings, ...], Field(max_length=MOST_NAMES)]
    names: Strings
    category_names: Strings
    #: whether an answer's numbers are told apart by their names
    apart: bool = False

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> "StoredNumbers":
        if self.names and len(self.names) != len(self.scaling.shift):
            raise ValueError(f"there are {len(self.names)} names, and scaling is of {len(self.scaling.shift)} features")
        if self.category_names and len(self.category_names) != len(self.categories):
            raise ValueError(f"there are {len(self.category_names)} category_names for {len(self.categories)} columns")
        if not self.scaling.shift and not any(self.categories):
            raise ValueError("there is no feature")
        if self.apart and (len(self.names) != len(self.scaling.shift) or self.categories):
            raise ValueError("numbers that are told apart have a name each")
        _distinct(self, names=self.names if self.apart else ())
        return _distinct(self, **{f"categories.{place}": words for place, words in enumerate(self.categories)})


class StoredClasses(Stored):
    """One of some classes."""

    kind: Literal["classes"]
    names: Annotated[Strings, Field(min_length=1)]
    counts: Annotated[tuple[Count, ...], Field(max_length=MOST_NAMES)]
    #: whether several of them may be the answer
    several: bool = False

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> "StoredClasses":
        if self.counts and len(self.counts) != len(self.names):
            raise ValueError(f"there are {len(self.counts)} counts for {len(self.names)} classes")
        return _distinct(self, names=self.names)


Place = Annotated[int, Field(ge=0, le=MOST_NAMES)]


class StoredForecast(Stored):
    """What a forecast answers, where it is more than all numbers of a step, one horizon later."""

    horizons: Annotated[tuple[Annotated[int, Field(ge=1, le=2**31)], ...], Field(min_length=1, max_length=MOST_NAMES)]
    columns: Annotated[tuple[Place, ...], Field(min_length=1, max_length=MOST_NAMES)]
    known: Annotated[tuple[Place, ...], Field(max_length=MOST_NAMES)]

    @pydantic.model_validator(mode="after")
    def _ascending(self) -> "StoredForecast":
        if list(self.horizons) != sorted(set(self.horizons)):
            raise ValueError("horizons are ascending, each once")
        return self


class StoredEncoding(Stored):
    """vocabulary.json."""

    version: int
    inputs: Annotated[StoredSymbols | StoredNumbers, Field(discriminator="kind")]
    targets: Annotated[StoredSymbols | StoredNumbers | StoredClasses, Field(discriminator="kind")]
    per_step: bool
    ahead: Annotated[int, Field(ge=0, le=2**31)]
    stride: Annotated[int, Field(ge=1, le=2**31)] = 1
    parameters: Annotated[int, Field(ge=1, le=MOST_NAMES)] = 1
    forecast: StoredForecast | None = None

    @pydantic.model_validator(mode="after")
    def _can_forecast(self) -> "StoredEncoding":
        if self.forecast is None:
            return self
        if not (isinstance(self.inputs, StoredNumbers) and isinstance(self.targets, StoredNumbers)):
            raise ValueError("a forecast is of numbers")
        width, due = len(self.inputs.scaling.shift), len(self.forecast.columns) * len(self.forecast.horizons)
        if max(*self.forecast.columns, *self.forecast.known, 0) >= width:
            raise ValueError(f"there are {width} numbers at a step, and the forecast is of others")
        if len(self.targets.scaling.shift) != due or self.ahead != self.forecast.horizons[0] or not self.per_step:
            raise ValueError(f"the forecast has {due} numbers, {self.forecast.horizons[0]} steps ahead and more")
        return self

    @pydantic.field_validator("version")
    @classmethod
    def _known(cls, version: int) -> int:
        if version != VERSION:
            raise ValueError(f"its version is {version}, this rayrnn reads {VERSION}: train the run anew")
        return version


VersionKey = Annotated[str, StringConstraints(pattern=r"^(held_out_)?(version|schema)$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class StoredData(Stored):
    """data.json: what a run has learned from; see rayrnn/runs/same_data.py."""

    #: a program gave the dataset: it is not what the recipe's `data` names
    handed_over: bool
    #: sequences to learn from
    training: Count
    held_out: Count
    #: of all that they hold, in whatever order; and of the order of their lengths
    content: Digest
    order: Digest
    #: at which versions tables were read that have some, by the keys of the recipe
    versions: dict[VersionKey, Annotated[int, Field(ge=0, lt=2**63)]] = Field(default_factory=dict)


class StoredNormal(Stored):
    """What is normal in some held-out sequences; see rayrnn/anomalies/detector.py."""

    scales: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Field(min_length=1, max_length=MOST_NAMES)]
    threshold: Annotated[float, Field(ge=0)]
    num_scores: Annotated[int, Field(ge=1, le=LARGEST)]


class StoredDetector(Stored):
    """One fit of detect.json, and what it was fitted on."""

    #: the recipe's section, and the network whose answers were scored
    settings: dict[str, pydantic.JsonValue]
    model: Digest
    #: what `rayrnn detect` scored steps by
    kind: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    #: the held-out part in words, its sequences, and their steps that have a score
    held_out: Annotated[str, StringConstraints(max_length=10_000)]
    sequences: Count
    steps: Count
    together: StoredNormal
    each: Annotated[dict[str, StoredNormal], Field(max_length=MOST_NAMES)]

    @pydantic.model_validator(mode="after")
    def _alike(self) -> "StoredDetector":
        width = len(self.together.scales)
        if other := next((key for key, normal in self.each.items() if len(normal.scales) != width), None):
            raise ValueError(f"each.{other} has {len(self.each[other].scales)} scales, together has {width}")
        return self


class StoredDetectors(Stored):
    """detect.json: the newest fit is the last."""

    version: Literal[1] = 1
    fits: Annotated[tuple[StoredDetector, ...], Field(max_length=100)]


class StoredProgress(Stored):
    """progress.json of a checkpoint."""

    round: Count
    sums: Count
    cursor: Count
    best_loss: float | None
    best_round: Count
    #: of a run that goes by the loss, whatever it is long, an earlier rayrnn did not tell these three
    monitor: Annotated[str, StringConstraints(max_length=200)] = "loss"
    best_value: float | None = None
    evaluations_without_better: Count
    seconds: Annotated[float, Field(ge=0)] = 0.0
    broken_rounds: Count
    reason: Literal["", "finished", "interrupted", "no better", "broken"]
    #: the order of the network's parameters, by which other files of the checkpoint go; rayrnn 0.1 did not tell it
    parameters: Digest | Literal[""] = ""

    @pydantic.model_validator(mode="after")
    def _fits_together(self) -> "StoredProgress":
        if self.best_round > self.round:
            raise ValueError(f"best_round is {self.best_round} of {self.round} rounds")
        return self


class StoredFile(Stored):
    """What a manifest says of one file."""

    bytes: Count
    sha256: Digest


class StoredManifest(pydantic.RootModel[dict[str, StoredFile]], Stored):
    """MANIFEST.json of a checkpoint."""

    model_config = pydantic.ConfigDict(extra=None, strict=True, frozen=True)

    @pydantic.model_validator(mode="after")
    def _of_a_checkpoint(self) -> "StoredManifest":
        if other := sorted(name for name in self.root if not re.fullmatch(CHECKPOINT_FILE, name)):
            raise ValueError(f"{other[0]!r} is no file of a checkpoint")
        if missing := sorted({"model.safetensors", "outer.safetensors", "progress.json"} - self.root.keys()):
            raise ValueError(f"it lacks {', '.join(missing)}")
        return self


class StoredRound(Stored):
    """One line of metrics.jsonl: what is read of it; the rest is for people."""

    model_config = pydantic.ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=True)

    round: Annotated[int, Field(ge=1, le=LARGEST)]
    loss: float | None = None
    held_out_loss: float | None = None


class StoredPart(Stored):
    """What is read of something inside a line of metrics.jsonl; another rayrnn may have written more or less."""

    model_config = pydantic.ConfigDict(extra="ignore", strict=True, frozen=True, allow_inf_nan=True)


Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class StoredWorkerRound(StoredPart):
    """One worker's part in a round."""

    worker: Count
    steps: Count = 0
    learning_seconds: Seconds = 0.0
    waiting_seconds: Seconds = 0.0
    evaluating_seconds: Seconds = 0.0
    averaging_seconds: Seconds = 0.0


class StoredMembership(StoredPart):
    """A worker was lost or joined; or those who were held up went on."""

    kind: str
    worker: Count | None = None
    reason: str = ""
    detail: str = ""
    seconds: float = 0.0


class StoredLayer(StoredPart):
    """How large a layer was, and how far it had moved."""

    name: str
    parameters: float | None = None
    update: float | None = None


class StoredSession(StoredPart):
    """What a driver said of itself when it began, or went on with, a run."""

    #: seconds since 1970
    time: Annotated[float, Field(ge=0, le=2**36)]
    versions: Annotated[dict[str, Annotated[str, StringConstraints(max_length=200)]], Field(max_length=100)] = {}
    #: numbers that the network learns
    parameters: Count | None = None


class StoredStory(StoredRound):
    """One line of metrics.jsonl: what a report tells of it. Runs of rayrnn 0.1 lack what came later."""

    learning_rate: float | None = None
    held_out_accuracy: float | None = None
    steps: Count = 0
    seconds: Seconds = 0.0
    bytes: Count = 0
    broken: tuple[int, ...] = ()
    workers: tuple[StoredWorkerRound, ...] = ()
    membership: tuple[StoredMembership, ...] = ()
    layers: tuple[StoredLayer, ...] = ()
    session: StoredSession | None = None
    #: seconds since 1970
    time: Annotated[float, Field(ge=0, le=2**36)] | None = None
    #: a run that stopped because of what was broken says who was
    culprit: dict[str, pydantic.JsonValue] | None = None


class StoredTracking(Stored):
    """tracking.json."""

    tracker: Annotated[str, StringConstraints(pattern=r"^[a-z]{1,20}$")]
    #: what the tracker calls the run
    run: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,128}$")]


class StoredRecord(Stored):
    """cluster.json: what is read of it."""

    model_config = pydantic.ConfigDict(extra="ignore", strict=True, frozen=True)

    job: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,200}-[0-9a-f]{8}$")]
    out: Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=r"^[^\x00-\x1f\x7f]+$")]


Attempt = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
#: seconds since 1970, of a year that a date can have
Moment = Annotated[int, Field(ge=0, le=2**36)]


class StoredLease(Stored):
    """lease.json of a store."""

    attempt: Attempt
    user: Annotated[str, StringConstraints(max_length=100)]
    host: Annotated[str, StringConstraints(max_length=200)]
    process: Count
    since: Moment
    #: signs of life: whoever sees it rise sees that the owner lives
    beats: Count
    #: the owner has ended
    over: bool


class StoredUnsent(Stored):
    """.unsent of a directory that stands for an address."""

    attempt: Attempt
    sent: Annotated[int, Field(ge=-1, le=LARGEST)]


Whole = TypeVar("Whole", bound=Stored)


def _distinct(whole: Whole, **lists: tuple[str, ...]) -> Whole:
    for name, words in lists.items():
        if len(set(words)) < len(words):
            raise ValueError(f"{name} has a word twice")
    return whole
