"""The detector: fitted on normal scores alone, applied to others."""

import numpy as np
import pytest

from rayrnn.anomalies.detector import FEWEST_SCORES, LEAST_SCALE, fit_detector
from rayrnn.errors import DataError
from rayrnn.recipe.detect_section import Detect


def raw(seed: int, steps: int = 200, width: int = 1, size: float = 1.0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 2 * size, (steps, width))


def test_a_score_is_a_multiple_of_the_normal_error_of_every_number() -> None:
    normal = np.column_stack([raw(1)[:, 0], 1000 * raw(2)[:, 0]])
    detector = fit_detector([("a", normal)], "error", Detect(warmup=0))
    assert detector.together.scales == pytest.approx(normal.mean(axis=0))
    judged = detector.judge("b", normal)
    assert judged.scores.mean() == pytest.approx(1.0)


def test_the_threshold_lies_where_the_normal_scores_say() -> None:
    scores = raw(1, steps=1000)
    detector = fit_detector([("a", scores)], "error", Detect(warmup=0, quantile=0.9, margin=1.5))
    assert detector.together.threshold == pytest.approx(1.5 * np.quantile(scores / scores.mean(), 0.9), rel=0.02)
    assert detector.together.num_scores == 1000


def test_a_sequence_of_the_same_name_has_what_is_normal_in_it() -> None:
    quiet, loud = raw(1, size=1.0), raw(2, size=100.0)
    detector = fit_detector([("quiet", quiet), ("loud", loud)], "error", Detect(warmup=0, fit="each", quantile=1.0))
    bump = np.full((1, 1), 10.0)
    assert detector.judge("quiet", bump).flags.all()
    assert not detector.judge("loud", bump).flags.any()
    assert detector.normal("another") == detector.together


def test_a_sequence_with_few_normal_scores_is_judged_as_all_are() -> None:
    short = raw(1, steps=FEWEST_SCORES - 1)
    detector = fit_detector([("short", short), ("long", raw(2))], "error", Detect(warmup=0, fit="each"))
    assert set(detector.each) == {"long"}


def test_where_the_network_is_never_wrong_a_tiny_error_is_still_finite() -> None:
    never, usual = np.zeros((100, 1)), raw(2)
    detector = fit_detector([("never", never), ("usual", usual)], "error", Detect(warmup=0, fit="each"))
    assert detector.each["never"].scales == pytest.approx((LEAST_SCALE * detector.together.scales[0],))
    only = fit_detector([("never", never)], "error", Detect(warmup=0))
    assert only.judge("x", np.ones((3, 1))).scores.tolist() == [1.0, 1.0, 1.0]


def test_pieces_of_one_sequence_are_fitted_together() -> None:
    detector = fit_detector(
        [("a", raw(1)), ("a", raw(2, size=9.0))], "error", Detect(warmup=0, fit="each", quantile=1.0)
    )
    assert detector.each["a"].num_scores == 400


def test_a_sequence_of_symbols_is_the_sum_of_their_surprises() -> None:
    normal = [(str(number), raw(number, steps=10)) for number in range(50)]
    detector = fit_detector(normal, "surprise", Detect(warmup=0, quantile=0.9))
    sums = sorted(scores.sum() for _, scores in normal)
    assert detector.together.threshold == pytest.approx(sums[44])
    assert sum(detector.judge(key, scores).is_anomalous for key, scores in normal) == 5


def test_the_rank_counts_symbols_that_are_not_among_the_likeliest() -> None:
    normal = [("a", np.array([[1.0], [9.0], [9.0]])), ("b", np.array([[1.0]]))]
    detector = fit_detector(normal, "rank", Detect(warmup=0, score="rank", top=9))
    assert detector.together.threshold == 0.0
    assert detector.judge("c", np.array([[10.0], [3.0], [11.0]])).score == 2.0
    assert detector.judge("c", np.array([[10.0]])).is_anomalous
    assert not detector.judge("c", np.array([[9.0]])).is_anomalous


def test_symbols_can_be_judged_step_by_step() -> None:
    detector = fit_detector([("a", raw(1))], "surprise", Detect(warmup=0, decide="steps"))
    assert detector.judge("b", np.array([[0.1], [50.0], [0.1]])).flags.tolist() == [False, True, False]


def test_short_bursts_are_no_events_and_long_ones_are_widened() -> None:
    detector = fit_detector([("a", raw(1))], "error", Detect(warmup=0, shortest=3, buffer=2))
    scores = np.zeros((30, 1))
    scores[[5, 6]], scores[15:18] = 99.0, 99.0
    assert np.flatnonzero(detector.judge("b", scores).flags).tolist() == list(range(13, 20))


def test_the_dynamic_threshold_is_never_below_what_is_normal() -> None:
    detector = fit_detector([("a", raw(1))], "error", Detect(warmup=0, threshold="dynamic", quantile=1.0, margin=3.0))
    judged = detector.judge("b", raw(5, steps=3000))
    assert judged.thresholds.min() >= detector.together.threshold
    assert not judged.flags.any()


def test_a_sequence_without_a_score_has_no_event() -> None:
    for settings in (Detect(warmup=0), Detect(warmup=0, threshold="dynamic"), Detect(warmup=0, smoothing=9)):
        judged = fit_detector([("a", raw(1))], "error", settings).judge("b", np.zeros((0, 1)))
        assert (len(judged.scores), len(judged.flags), judged.is_anomalous) == (0, 0, False)


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_score_that_is_no_finite_number_is_told_with_its_sequence(broken: float) -> None:
    scores = raw(1)
    scores[7] = broken
    with pytest.raises(DataError, match=r"sequence 'a': .* not a finite number, 7 steps after"):
        fit_detector([("a", scores)], "error", Detect(warmup=0))
    with pytest.raises(DataError, match=r"sequence 'b': .* not a finite number"):
        fit_detector([("a", raw(1))], "error", Detect(warmup=0)).judge("b", scores)


def test_without_any_score_nothing_can_be_fitted() -> None:
    with pytest.raises(DataError, match="too short; hold out longer ones"):
        fit_detector([("a", np.zeros((0, 1)))], "error", Detect(warmup=0))


def test_the_first_steps_of_a_series_are_neither_judged_nor_fitted_on() -> None:
    begin, normal = np.full((5, 1), 100.0), raw(3)
    settings = Detect(warmup=5, quantile=1.0)
    detector = fit_detector([("a", np.concatenate([begin, normal]))], "error", settings)
    assert detector == fit_detector([("a", np.concatenate([begin * 7, normal]))], "error", settings)
    judged = detector.judge("b", np.concatenate([begin, normal, begin]))
    assert np.isnan(judged.scores[:5]).all()
    assert not np.isnan(judged.scores[5:]).any()
    assert not judged.flags[:-5].any()
    assert judged.flags[-5:].all()
    assert len(judged.scores) == len(judged.thresholds) == len(judged.flags) == 10 + len(normal)


def test_a_series_that_is_shorter_than_the_warm_up_has_no_anomaly() -> None:
    judged = fit_detector([("a", raw(3))], "error", Detect()).judge("b", np.full((4, 1), 1e6))
    assert not judged.flags.any()
    with pytest.raises(DataError, match=r"after the first 500 \(detect\.warmup\): they are too short"):
        fit_detector([("a", raw(3)[:400])], "error", Detect(warmup=500))
