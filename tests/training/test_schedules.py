"""Learning rates of a training that is limited in time."""

import time

import pytest

from trct_monai.training import CosineOverTime, refuse_flags


def test_the_factor_falls_with_the_time_whatever_the_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter([5000.0, 5015.0, 5030.0, 5045.0, 5060.0, 9000.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(times))
    factor = CosineOverTime(60.0)
    found = [factor(epoch) for epoch in (0, 7, 7, 8, 9, 900)]
    assert found == pytest.approx([1.0, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5, 0.0, 0.0])


def test_no_time_is_refused() -> None:
    with pytest.raises(ValueError, match="seconds must be positive"):
        CosineOverTime(0.0)


def test_flags_that_would_be_ignored_are_refused() -> None:
    refuse_flags("it draws its cases", datalist=None, resume=False)
    with pytest.raises(ValueError, match="it draws its cases: --datalist, --resume cannot be given with it"):
        refuse_flags("it draws its cases", datalist="a.json", views=None, resume=True)
