"""detect.json of a run: what `rayrnn detect` has fitted, by the settings and the network that it was fitted with."""

import hashlib
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from rayrnn.anomalies.detector import Detector, Normal
from rayrnn.durable import replace_durably, stamp_of
from rayrnn.errors import RunError
from rayrnn.foreign import memory_bytes, read_inside
from rayrnn.recipe.detect_section import Detect
from rayrnn.runs.directory import Run
from rayrnn.runs.layout import DETECT, MODEL
from rayrnn.runs.schema import StoredDetector, StoredDetectors, StoredNormal, read_stored

_CHECKSUMS: "WeakKeyDictionary[Run, tuple[tuple[int, int, int], str]]" = WeakKeyDictionary()
#: fits that are kept, so that trying out settings makes no long file
MOST_FITS = 16


@dataclass(frozen=True)
class Fitted:
    """A detector, and what it was fitted on."""

    detector: Detector
    #: the held-out part in words
    held_out: str
    num_sequences: int
    #: that have a score
    num_steps: int


def stored_detector(run: Run, kind: str, settings: Detect) -> Fitted | None:
    """The detector that was fitted with these settings on the run's network of now; None where there is none.

    Raises:
        RunError: the file cannot be read, or holds something else; names it and the key.
    """
    model = model_checksum(run)
    fits = [fit for fit in _fits(run) if _is_of(fit, kind, settings, model)]
    if not fits:
        return None
    fit = fits[-1]
    each = {key: _normal(stored) for key, stored in fit.each.items()}
    return Fitted(Detector(kind, settings, _normal(fit.together), each), fit.held_out, fit.sequences, fit.steps)


def keep_detector(run: Run, fitted: Fitted) -> str:
    """Keep what was fitted with the run.

    Returns:
        why it could not be kept, if so: it is fitted again the next time.

    Raises:
        RunError: the file that is there cannot be read.
    """
    if run.address is not None:
        return f"{run.address} is a store: what was fitted is not kept there, and will be fitted again"
    detector, model = fitted.detector, model_checksum(run)
    others = [fit for fit in _fits(run) if not _is_of(fit, detector.kind, detector.settings, model)]
    fit = StoredDetector(
        settings=detector.settings.model_dump(mode="json"),
        model=model,
        kind=detector.kind,
        held_out=fitted.held_out[:10_000],
        sequences=fitted.num_sequences,
        steps=fitted.num_steps,
        together=_stored(detector.together),
        each={key: _stored(normal) for key, normal in detector.each.items()},
    )
    kept = StoredDetectors(fits=(*others, fit)[-MOST_FITS:])
    try:
        replace_durably(run.path / DETECT, kept.model_dump_json(indent=1).encode())
    except OSError as error:
        return f"{run.path / DETECT} cannot be written ({error.strerror}): what was fitted will be fitted again"
    return ""


def _fits(run: Run) -> tuple[StoredDetector, ...]:
    try:
        return read_stored(run.path, DETECT, StoredDetectors).fits
    except FileNotFoundError:
        return ()


def _is_of(fit: StoredDetector, kind: str, settings: Detect, model: str) -> bool:
    return (fit.kind, fit.settings, fit.model) == (kind, settings.model_dump(mode="json"), model)


def model_checksum(run: Run) -> str:
    """Of the network: a run that learns on has another. The file is read again when another one is in its place.

    Raises:
        RunError: there is none that can be read.
    """
    stamp = stamp_of(run.path / MODEL)
    kept = _CHECKSUMS.get(run)
    if kept is None or kept[0] != stamp:
        kept = _CHECKSUMS[run] = stamp, _read_checksum(run)
    return kept[1]


def _read_checksum(run: Run) -> str:
    try:
        return hashlib.sha256(read_inside(run.path, MODEL, most=memory_bytes())).hexdigest()
    except OSError as error:
        raise RunError(f"{run.path / MODEL} cannot be used: {error.strerror}") from None


def _normal(stored: StoredNormal) -> Normal:
    return Normal(stored.scales, stored.threshold, stored.num_scores)


def _stored(normal: Normal) -> StoredNormal:
    return StoredNormal(scales=normal.scales, threshold=normal.threshold, num_scores=normal.num_scores)
