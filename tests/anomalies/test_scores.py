"""Scores of steps: errors, surprise, rank, and what smoothing makes of them."""

import numpy as np
import pytest
import torch

from rayrnn.anomalies.scores import MOST_SURPRISE, absolute_errors, ranks, smoothed, surprises


def test_an_error_is_the_distance_from_the_forecast() -> None:
    errors = absolute_errors(np.array([[1.0, -2.0]], np.float32), np.array([[3.0, -2.5]], np.float32))
    assert errors.tolist() == [[2.0, 0.5]]


def test_surprise_is_what_torch_calls_cross_entropy() -> None:
    generator = np.random.default_rng(1)
    logits_SV, targets_S = generator.normal(0, 5, (50, 7)).astype(np.float32), generator.integers(0, 7, 50)
    expected = torch.nn.functional.cross_entropy(
        torch.from_numpy(logits_SV), torch.from_numpy(targets_S), reduction="none"
    )
    np.testing.assert_allclose(surprises(logits_SV, targets_S), expected.numpy(), rtol=1e-5, atol=1e-6)


def test_no_surprise_is_larger_than_that_of_a_symbol_that_was_never_seen() -> None:
    assert surprises(np.array([[0.0, 1e30]], np.float32), np.array([0])).tolist() == [MOST_SURPRISE]


def test_the_likeliest_symbol_has_rank_one_and_the_unlikeliest_the_last() -> None:
    logits_SV = np.array([[0.1, 3.0, -1.0], [0.1, 3.0, -1.0], [2.0, 2.0, 0.0]], np.float32)
    assert ranks(logits_SV, np.array([1, 2, 0])).tolist() == [1, 3, 2]


@pytest.mark.parametrize("score", [surprises, ranks])
def test_answers_that_are_no_numbers_have_scores_that_are_none(score: object) -> None:
    assert callable(score)
    assert np.isnan(score(np.array([[np.nan, 1.0]], np.float32), np.array([1]))).all()


@pytest.mark.parametrize("span", [2, 10, 105])
def test_smoothing_is_the_weighted_mean_of_the_scores_so_far(span: int) -> None:
    scores = np.random.default_rng(span).exponential(size=40)
    weights = (1 - 2 / (span + 1)) ** np.arange(40)
    expected = [(scores[t::-1] * weights[: t + 1]).sum() / weights[: t + 1].sum() for t in range(40)]
    np.testing.assert_allclose(smoothed(scores, span), expected)


@pytest.mark.parametrize("span", [0, 1])
def test_without_a_span_scores_stay_as_they_are(span: int) -> None:
    assert smoothed(np.array([1.0, 5.0, 2.0]), span).tolist() == [1.0, 5.0, 2.0]


def test_smoothing_keeps_a_constant() -> None:
    np.testing.assert_allclose(smoothed(np.full(500, 3.0), 50), 3.0)
