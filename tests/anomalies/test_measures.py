"""Measures against known events: each on examples counted by hand."""

import numpy as np
import pytest

from rayrnn.anomalies.intervals import flags
from rayrnn.anomalies.measures import (
    Compared,
    event_measures,
    point_adjusted_f1,
    ranking,
    sequence_measures,
    shown,
    step_measures,
    ucr_hits,
)

Events = list[tuple[int, int]]


def compared(found: Events, known: Events, steps: int = 1000, peak: int | None = None) -> Compared:
    inside = flags(found, steps)
    scores = inside.astype(float)
    if peak is not None:
        scores[peak] = 9.0
    return Compared(scores, inside, known)


def test_an_event_is_found_once_however_many_detections_share_a_step_with_it() -> None:
    one = compared(found=[(10, 12), (15, 15), (40, 50)], known=[(11, 20), (60, 70)])
    found = event_measures([one])
    assert (found["events"], found["found"], found["false_alarms"]) == (2, 1, 1)
    assert (found["precision"], found["recall"], found["f1"]) == (0.5, 0.5, 0.5)


def test_events_of_all_sequences_are_pooled() -> None:
    sequences = [compared([(1, 2)], [(2, 3)]), compared([(1, 2)], []), compared([], [(5, 5)]), compared([], [])]
    found = event_measures(sequences)
    assert (found["events"], found["found"], found["false_alarms"], found["f1"]) == (2, 1, 1, 0.5)


def test_where_nothing_was_found_there_is_no_precision() -> None:
    found = event_measures([compared([], [(5, 5)])])
    assert (found["precision"], found["recall"], found["f1"]) == (None, 0.0, 0.0)


def test_scores_of_any_size_are_ranked() -> None:
    """As they are, a sigmoid would make one of all scores above 40."""
    scores, true = np.array([1.0, 50.0, 60.0, 1e9, np.nan]), np.array([False, False, True, True, True])
    assert ranking(scores, true) == {"auroc": 1.0, "average_precision": 1.0}
    half = ranking(np.array([100.0, 200.0, 300.0, 400.0]), np.array([True, False, True, False]))
    assert half["auroc"] == pytest.approx(0.25)
    # the true ones have places 2 and 4 of 4: precisions 1/2 and 2/4
    assert half["average_precision"] == pytest.approx(0.5)


def test_scores_that_are_alike_part_nothing() -> None:
    assert ranking(np.ones(6), np.array([True, False] * 3))["auroc"] == pytest.approx(0.5)


@pytest.mark.parametrize("true", [np.zeros(4, bool), np.ones(4, bool)])
def test_one_kind_of_step_alone_cannot_be_ranked(true: np.ndarray) -> None:
    assert ranking(np.arange(4.0), true) == {"auroc": None, "average_precision": None}


@pytest.mark.parametrize(
    ("peak", "event", "is_hit"),
    [
        (500, (500, 510), True),
        (400, (500, 510), True),
        (399, (500, 510), False),
        (610, (500, 510), True),
        (611, (500, 510), False),
        (200, (500, 799), True),
        (199, (500, 799), False),
    ],
)
def test_a_peak_near_the_only_event_is_a_hit(peak: int, event: tuple[int, int], is_hit: bool) -> None:
    assert ucr_hits([compared([], [event], peak=peak)])["ucr_hit"] == float(is_hit)


def test_series_with_other_than_one_event_have_no_part_in_the_hits() -> None:
    several = [compared([], [(1, 2), (5, 6)], peak=1), compared([], [], peak=1)]
    assert ucr_hits(several) == {"ucr_hit": None, "ucr_sequences": 0}


def test_point_adjusting_makes_much_of_one_step() -> None:
    one = compared(found=[(150, 150), (900, 900)], known=[(100, 199)])
    # 100 steps of the event count as found, one other is not in it
    assert point_adjusted_f1([one]) == pytest.approx(2 * 100 / (2 * 100 + 1))
    assert event_measures([one])["f1"] == pytest.approx(2 / 3)


def test_the_misleading_measure_is_last_and_says_so() -> None:
    measures = step_measures([compared([(1, 2)], [(2, 3)])])
    assert list(measures)[-1] == "point_adjusted_f1_misleading"
    assert "misleading" in shown(measures)[-1][0]


def test_whole_sequences_are_measured_by_what_was_flagged() -> None:
    scores = np.array([1.0, 5.0, 9.0, 7.0, 3.0])
    flagged, true = scores > 4, np.array([False, False, True, True, True])
    found = sequence_measures(scores, flagged, true)
    assert (found["anomalous"], found["normal"], found["found"], found["false_alarms"]) == (3, 2, 2, 1)
    assert (found["recall"], found["precision"]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))
    assert found["false_alarm_rate"] == 0.5
