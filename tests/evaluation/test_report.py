"""One HTML file that needs nothing else, driven by keys and mouse in a real browser where there is one."""

import base64
import json
import re
import shutil
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from trct_monai.datasets.phantom_sets import phantoms as make_phantoms
from trct_monai.datasets.plant import plant
from trct_monai.evaluation.evaluate import evaluate
from trct_monai.evaluation.report import report
from trct_monai.evaluation.report.case import HU_STEP
from trct_monai.evaluation.report.codec import MIDDLE, encode
from trct_monai.evaluation.scores import CaseRadiographs
from trct_monai.figures import planes
from trct_monai.io.datalist import load_datalist

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of predictions that all are one patient: it has a warning to show."""
    folder = tmp_path_factory.mktemp("report")
    make_phantoms(str(folder / "data"), size=16, radiograph_size=32, split="3/0/5", num_workers=0)
    datalist = folder / "data" / "datalist.json"
    cases = load_datalist(datalist, "test")
    (folder / "predictions").mkdir()
    hu = nibabel.load(cases[0]["label"]).get_fdata().astype(np.float32) + 20
    for case in cases:
        image = nibabel.Nifti1Image(hu, nibabel.load(case["label"]).affine)
        nibabel.save(image, folder / "predictions" / f"{case['case_id']}.nii.gz")
    evaluate(
        predictions=str(folder / "predictions"),
        datalist=str(datalist),
        output=str(folder / "out"),
        name="</script><b>stubborn",
        figures=0,
        num_workers=0,
    )
    report(evaluation=str(folder / "out"))
    return folder / "out"


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of a planted data set, of predictions that are the truths."""
    folder = tmp_path_factory.mktemp("planted")
    make_phantoms(str(folder / "data"), size=16, radiograph_size=32, split="1/0/2", num_workers=0)
    datalist = folder / "planted" / "datalist.json"
    spheres = {"diameters": "50/80", "contrasts": "300/600"}
    plant(datalist=str(folder / "data" / "datalist.json"), output=str(datalist.parent), num_workers=0, **spheres)
    (folder / "p").mkdir()
    for case in load_datalist(datalist, "test"):
        shutil.copy(case["label"], folder / "p" / f"{case['case_id']}.nii.gz")
    options = {"predictions": str(folder / "p"), "datalist": str(datalist), "output": str(folder / "out")}
    evaluate(**options, figures=0, num_workers=0)
    report(evaluation=str(folder / "out"), lesions=3)
    return folder / "out"


def decode(encoded: dict[str, Any]) -> np.ndarray:
    """The array that `encode` wrote, as `pictures.js` decodes it."""
    planes = np.frombuffer(zlib.decompress(base64.b64decode(encoded["data"])), dtype=np.uint8).astype(np.uint16)
    low, high = planes.reshape(2, *encoded["shape"])
    numbers = np.cumsum(low + (high << 8) - MIDDLE, axis=-1, dtype=np.uint16)
    return np.asarray(encoded["offset"] + encoded["step"] * numbers.astype(np.float64))


def embedded(page: str, kind: str) -> list[dict[str, Any]]:
    return [json.loads(t) for t in re.findall(rf'<script type="application/json" class="{kind}">(.*?)</script>', page)]


@pytest.mark.parametrize("shape", [(5,), (3, 4), (4, 5, 6)])
def test_an_array_comes_back_within_half_a_step(shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).uniform(-1300, 1700, shape)
    found = decode(json.loads(json.dumps(encode(values, -1024.0, 1476.0, 4.0))))
    assert found.shape == shape and np.abs(found - values.clip(-1024, 1476)).max() <= 2.0
    with pytest.raises(ValueError, match="at most 65536"):
        encode(values, 0.0, 1.0, 1e-6)


def test_the_page_holds_every_case_worst_first_and_nothing_from_elsewhere(evaluation: Path) -> None:
    page = (evaluation / "report.html").read_text(encoding="utf-8")
    (head,) = embedded(page, "evaluation")
    cases = embedded(page, "case")
    scores = [float(row["hu.psnr_3d"]) for row in head["cases"]]
    assert scores == sorted(scores) and [case["case_id"] for case in cases] == [row["case_id"] for row in head["cases"]]
    assert head["summary"]["flags"][0]["name"] == "ignores its input"
    truth = {
        case["case_id"]: nibabel.load(case["label"]).get_fdata() for case in load_datalist(datalist(evaluation), "test")
    }
    for case in cases:
        expected = truth[case["case_id"]].clip(-1024, 1476)
        assert np.abs(decode(case["truth"]) - expected).max() <= 2.0
        assert [(view["name"], *view["sides"]) for view in case["views"]] == [("pa", *"RLSI"), ("lat", *"APSI")]
    own = page[: page.index("<script>")]  # what comes after is plotly and the viewer
    assert not re.search(r"(src|href)=|url\(|@import", own)
    assert "<b>stubborn" not in page


def datalist(evaluation: Path) -> str:
    return str(json.loads((evaluation / "summary.json").read_text(encoding="utf-8"))["datalist"])


def test_finer_volumes_are_averaged_down(evaluation: Path, tmp_path: Path) -> None:
    report(evaluation=str(evaluation), output=str(tmp_path / "small.html"), size=8, max_cases=1)
    (case,) = embedded((tmp_path / "small.html").read_text(encoding="utf-8"), "case")
    truth = next(
        c
        for c in load_datalist(evaluation.parent / "data" / "datalist.json", "test")
        if c["case_id"] == case["case_id"]
    )
    blocks = nibabel.load(truth["label"]).get_fdata().clip(-1024, 1476).reshape(8, 2, 8, 2, 8, 2).mean(axis=(1, 3, 5))
    assert case["spacing"] == pytest.approx(40.0)
    assert np.abs(decode(case["truth"]) - blocks).max() < 2.1


def test_pictures_on_a_scale_of_their_own_are_compared_after_a_fit(evaluation: Path, tmp_path: Path) -> None:
    data = evaluation.parent / "data" / "datalist.json"
    page = json.loads(data.read_text(encoding="utf-8"))
    for case in page["test"]:
        case["intensity"] = [{"quantitative": False, "gain": None, "offset": None} for _ in case["image"]]
    changed = data.with_name("unquantitative.json")
    changed.write_text(json.dumps(page), encoding="utf-8")
    folder = shutil.copytree(evaluation, tmp_path / "copy")
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    (folder / "summary.json").write_text(
        json.dumps(summary | {"datalist": str(changed), "detectability": None}), encoding="utf-8"
    )
    report(evaluation=str(folder), max_cases=1)
    (case,) = embedded((folder / "report.html").read_text(encoding="utf-8"), "case")
    assert case["fitted"]
    for view in case["views"]:
        real, shadow = decode(view["radiograph"]), decode(view["reprojection"])
        assert shadow.mean() == pytest.approx(real.mean(), abs=view["radiograph"]["step"])
        assert np.abs(shadow - real).mean() < np.abs(real - real.mean()).mean()


def test_cases_without_cameras_are_shown_without_radiographs(evaluation: Path, tmp_path: Path) -> None:
    data = evaluation.parent / "data" / "datalist.json"
    page = json.loads(data.read_text(encoding="utf-8"))
    for case in page["test"]:
        del case["cameras"]
    changed = data.with_name("no_cameras.json")
    changed.write_text(json.dumps(page), encoding="utf-8")
    folder = shutil.copytree(evaluation, tmp_path / "copy")
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    (folder / "summary.json").write_text(json.dumps(summary | {"datalist": str(changed)}), encoding="utf-8")
    report(evaluation=str(folder), max_cases=1)
    (case,) = embedded((folder / "report.html").read_text(encoding="utf-8"), "case")
    assert case["views"] == [] and not case["fitted"]


def test_without_plotly_the_error_says_what_to_install(evaluation: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(ValueError, match=r"pip install 'trct_monai\[report\]'"):
        report(evaluation=str(evaluation))


def test_fifty_noisy_cases_stay_under_thirty_megabytes() -> None:
    noise = np.random.default_rng(0).normal(0, 10, (2, 64, 64, 64))  # HU; a CT averaged to 5 mm has less
    volumes = sum(len(encode(volume, -1024, 1476, HU_STEP)["data"]) for volume in noise)
    pictures = 4 * 4 / 3 * 128 * 128
    assert 50 * (volumes + pictures) + 5e6 < 30e6


def test_a_folder_that_is_not_an_evaluation_is_refused(evaluation: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no evaluation: expected summary.json and cases.csv"):
        report(evaluation=str(tmp_path))
    with pytest.raises(FileNotFoundError, match="no such file"):
        report(evaluation=str(evaluation), leaderboard=str(tmp_path / "none.csv"))
    for numbers in ({"size": 0}, {"max_cases": 0}):
        with pytest.raises(ValueError, match="must be at least 1"):
            report(evaluation=str(evaluation), **numbers)
    moved = shutil.copytree(evaluation, tmp_path / "moved")
    summary = json.loads((moved / "summary.json").read_text(encoding="utf-8"))
    for changes, message in (
        ({"predictions": str(tmp_path / "gone")}, "its predictions .*gone are gone"),
        ({"format_version": 0}, "expected trct-evaluation version 1"),
    ):
        (moved / "summary.json").write_text(json.dumps(summary | changes), encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            report(evaluation=str(moved))
    for text, message in (("{", "summary.json: not JSON"), ("[]", "summary.json is not the summary of an evaluation")):
        (moved / "summary.json").write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            report(evaluation=str(moved))
    (moved / "summary.json").write_text(json.dumps(summary), encoding="utf-8")
    for text in ("", "case_id,score\na,1\n"):
        (moved / "cases.csv").write_text(text, encoding="utf-8")
        with pytest.raises(ValueError, match="cases.csv has no scores; run evaluate again"):
            report(evaluation=str(moved))


def test_planted_lesions_are_shown_through_their_centre_the_largest_first(planted: Path) -> None:
    lesions = embedded((planted / "report.html").read_text(encoding="utf-8"), "lesion")
    assert [(one["diameter_mm"], one["contrast_hu"]) for one in lesions] == [(80, 600), (80, 600), (80, 300)]
    cases = {case["case_id"]: case for case in load_datalist(datalist(planted), "test")}
    for one in lesions:
        views = CaseRadiographs(cases[one["case_id"]]).images - CaseRadiographs(cases[one["base"]]).images
        shadows = [(view["mark"], shadow.numpy()) for view, shadow in zip(one["views"], views)]
        changes = [(part["mark"], decode(part["with"]) - decode(part["without"])) for part in one["slices"]]
        assert [part["plane"] for part in one["slices"]] == ["axial", "coronal"] and len(one["views"]) == 2
        for mark, change in (*changes, *shadows):  # the middle of what changes is marked
            rows, columns = np.indices(change.shape)
            found = [(change * places).sum() / change.sum() for places in (columns, rows)]
            assert found == pytest.approx([mark["x"], mark["y"]], abs=0.5)


def test_a_page_without_spheres_shows_no_lesions(evaluation: Path, planted: Path, tmp_path: Path) -> None:
    assert embedded((evaluation / "report.html").read_text(encoding="utf-8"), "lesion") == []
    with pytest.raises(ValueError, match="lesions must not be negative, got -1"):
        report(evaluation=str(planted), lesions=-1)


@pytest.fixture
def browser() -> Iterator[Any]:
    if CHROMIUM is None or DRIVER is None:
        pytest.skip("needs chromium and chromedriver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1700,1300",
    ):
        options.add_argument(argument)
    options.binary_location = CHROMIUM
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def test_the_page_opens_scrolls_and_shows_no_error(evaluation: Path, browser: Any) -> None:
    from selenium.webdriver import ActionChains, Keys
    from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
    from selenium.webdriver.support.ui import WebDriverWait

    def text(name: str) -> str:
        return str(browser.find_element("id", name).text)

    def until(condition: Any) -> None:
        WebDriverWait(browser, 20).until(lambda _: condition())

    def press(*keys: str) -> None:
        ActionChains(browser).send_keys(*keys).perform()

    browser.get((evaluation / "report.html").as_uri())
    page = (evaluation / "report.html").read_text(encoding="utf-8")
    (head,) = embedded(page, "evaluation")
    names = [row["case_id"] for row in head["cases"]]

    def shown() -> Any:
        return browser.find_element("tag name", "body").get_attribute("data-shown")

    until(lambda: shown() == names[0])
    assert "ignores its input" in text("flags") and text("title").startswith("</script><b>stubborn: 5 cases")
    assert text("slice") == "axial slice 9 of 16, full window, -1024 to 1476 HU"
    press(Keys.ARROW_UP, "1")
    assert text("slice") == "axial slice 10 of 16, lung window, -1350 to 150 HU"
    press("c", Keys.PAGE_DOWN, "3")
    assert text("slice") == "coronal slice 4 of 16, bone window, -500 to 1300 HU"
    truth = torch.from_numpy(decode(embedded(page, "case")[0]["truth"]))
    for plane, expected in planes(truth, (8, 3, 9)).items():
        cut = browser.execute_script(
            f"return slice(state.volumes[0], '{plane}', state.position[PLANES['{plane}'].cut])"
        )
        assert np.array_equal(cut, expected), f"the {plane} plane is hung as in figures.py"
    figure = browser.find_element("id", "planes")
    browser.execute_script("arguments[0].scrollIntoView()", figure)
    origin = ScrollOrigin.from_element(figure, 0, figure.size["height"] // 3)
    ActionChains(browser).scroll_from_origin(origin, 0, -100).perform()
    until(lambda: text("slice").startswith("sagittal slice 10 of 16"))
    ActionChains(browser).move_to_element_with_offset(
        figure, -figure.size["width"] // 3, -figure.size["height"] // 3 + 20
    ).click().perform()
    until(lambda: text("slice").startswith("axial slice"))
    press("n")
    until(lambda: shown() == names[1])
    press("p", "p")
    until(lambda: shown() == names[-1])
    browser.find_element("css selector", "#list tbody tr:nth-child(3)").click()
    until(lambda: shown() == names[2])
    assert len(browser.find_elements("css selector", "#planes .heatmaplayer image")) == 9
    assert len(browser.find_elements("css selector", "#radiographs .heatmaplayer image")) == 6
    assert browser.execute_script("return performance.getEntriesByType('resource').map((entry) => entry.name)") == []
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_the_place_of_a_lesion_is_marked_only_when_asked_for(planted: Path, browser: Any) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    names = [one["case_id"] for one in embedded((planted / "report.html").read_text(encoding="utf-8"), "lesion")]
    browser.get((planted / "report.html").as_uri())
    section = browser.find_element("id", "lesions")

    def until(shown: str) -> None:
        WebDriverWait(browser, 20).until(lambda _: section.get_attribute("data-shown") == shown)

    def press(text: str) -> None:
        buttons = section.find_elements("tag name", "button")
        next(button for button in buttons if button.text == text).click()

    def circles() -> int:
        return len(browser.execute_script("return document.getElementById('lesion_pictures').layout.shapes || []"))

    until(f"{names[0]} lung false")
    assert circles() == 0 and len(section.find_elements("css selector", ".heatmaplayer image")) == 10
    press("mark the place")
    until(f"{names[0]} lung true")
    assert circles() == 10
    press("next")
    until(f"{names[1]} lung false")
    press("soft tissue")
    until(f"{names[1]} soft tissue false")
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
