"""Intervals, paired tests, skill."""

import math

import numpy as np
import pytest

from trct_monai.metrics import bootstrap_mean, compare_pairs, paired_test, skill_score


def test_the_interval_of_many_patients_is_that_of_a_normal_mean() -> None:
    values = np.random.default_rng(0).normal(20.0, 2.0, 400)
    found = bootstrap_mean(values.tolist(), [str(i) for i in range(400)])
    half = 1.96 * values.std() / 20
    assert found is not None and found.cases == 400 and found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.02)
    assert found.high == pytest.approx(values.mean() + half, abs=0.02)


def test_cases_of_one_patient_are_no_independent_evidence() -> None:
    values = np.random.default_rng(1).normal(size=10)
    once = bootstrap_mean(values.tolist(), [str(i) for i in range(10)])
    repeated = bootstrap_mean(np.repeat(values, 20).tolist(), [str(i) for i in range(10) for _ in range(20)])
    assert once is not None and repeated is not None
    assert (repeated.low, repeated.high) == pytest.approx((once.low, once.high))


def test_values_that_are_not_defined_are_left_out() -> None:
    found = bootstrap_mean([1.0, math.nan, 3.0], ["a", "b", "c"])
    assert found is not None and (found.mean, found.cases) == (2.0, 2)
    assert bootstrap_mean([math.nan], ["a"]) is None
    single = bootstrap_mean([5.0], ["a"])
    assert single is not None and (single.low, single.high, single.std) == (5.0, 5.0, 0.0)


def test_a_paired_test_sees_a_small_steady_gain_and_no_gain_in_noise() -> None:
    generator = np.random.default_rng(2)
    base, patients = generator.normal(20.0, 3.0, 30), [str(i) for i in range(30)]
    assert paired_test((base + 0.2 + 0.1 * generator.normal(size=30)).tolist(), base.tolist(), patients) < 1e-4
    assert paired_test((base + generator.normal(size=30)).tolist(), base.tolist(), patients) > 0.01
    assert paired_test(base.tolist(), base.tolist(), patients) == 1.0


def test_a_paired_test_refuses_scores_that_are_not_defined() -> None:
    with pytest.raises(ValueError, match="needs finite scores of both methods"):
        paired_test([1.0, math.nan, 2.0], [0.0, 0.0, 0.0], ["a", "b", "c"])


def test_a_comparison_is_over_the_cases_that_both_have_and_tells_how_many() -> None:
    cases = [f"case{number}" for number in range(8)]
    a, b = dict.fromkeys(cases, 2.0), dict.fromkeys(cases, 1.0)
    a["case3"], b["case5"] = math.nan, math.nan
    difference, p_value = compare_pairs(a, b, dict(zip(cases, cases)))
    assert difference is not None and (difference.mean, difference.cases) == (1.0, 6)
    assert p_value == pytest.approx(2 / 2**6)
    assert compare_pairs(a, dict.fromkeys(cases, math.nan), dict(zip(cases, cases))) == (None, None)
    one_patient, p_value = compare_pairs(a, b, dict.fromkeys(cases, "same"))
    assert one_patient is not None and one_patient.cases == 6 and p_value is None


def test_skill_is_the_share_of_the_error_that_is_gone() -> None:
    assert skill_score([20.0, 30.0, 10.0], [20.0, 20.0, 20.0]) == pytest.approx([0.0, 0.9, -9.0])
