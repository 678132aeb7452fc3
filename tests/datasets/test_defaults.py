"""A bundle without a data set makes its own, once."""

from pathlib import Path

import pytest

from trct_monai.datasets import defaults
from trct_monai.io.datalist import load_datalist


@pytest.mark.slow
def test_phantoms_are_made_where_there_are_none_and_kept_where_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(defaults, "SPLIT", "1/1/1")
    path = Path(defaults.default_datalist(tmp_path / "new", size=8, radiograph_size=16))
    assert "making phantoms, as by: python -m trct_monai phantoms --output" in capsys.readouterr().out
    assert len(load_datalist(path, "training", "x2ct")) == 1
    written = path.stat().st_mtime_ns
    assert defaults.default_datalist(tmp_path / "new", size=8, radiograph_size=16) == str(path)
    assert path.stat().st_mtime_ns == written


def test_several_processes_do_not_all_make_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="there is no datalist .*; make one first: python -m trct_monai phantoms"):
        defaults.default_datalist(tmp_path)
    assert not list(tmp_path.iterdir())
