"""DICOM series as scanners, archives and anonymisers leave them: read as they are, or refused in one line."""

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest

from tests.field.inputs import edit, hu_off, prepare, run, save, write_enhanced, write_series
from trct_monai.phantoms import Phantom


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "in"


def test_a_series_is_read_as_it_is(folder: Path, phantom: Phantom) -> None:
    write_series(folder, phantom.ct_hu, phantom.affine)
    assert hu_off(prepare(folder), phantom) < 0.3


def halves(**values: object):  # type: ignore[no-untyped-def]
    """Other values in the upper half of the slices."""

    def change(data, number):  # type: ignore[no-untyped-def]
        for keyword, value in values.items() if number >= 20 else ():
            setattr(data, keyword, value)

    return change


def without(keyword: str):  # type: ignore[no-untyped-def]
    return lambda data, number: delattr(data, keyword)


def at(place):  # type: ignore[no-untyped-def]
    """Each slice at another height, given by its number."""

    def change(data, number):  # type: ignore[no-untyped-def]
        position = [float(value) for value in data.ImagePositionPatient]
        data.ImagePositionPatient = [*position[:2], place(number)]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(halves(PixelSpacing=[4.0, 4.0]), "PixelSpacing is 4.4, but 8.8", id="d02_mixed_spacing"),
        pytest.param(without("PixelSpacing"), "no PixelSpacing", id="p01_no_pixel_spacing"),
        pytest.param(halves(PixelSpacing=None), "no PixelSpacing", id="spacing missing in some"),
        pytest.param(halves(PixelSpacing=[0.0, 8.0]), "PixelSpacing must be above 0", id="spacing 0"),
        pytest.param(without("ImageOrientationPatient"), "no ImageOrientationPatient", id="p04_no_orientation"),
        pytest.param(without("ImagePositionPatient"), "no ImagePositionPatient", id="e08_no_position"),
        pytest.param(halves(ImageOrientationPatient=[1.0, 0, 0, 0, 1, 0]), "ImageOrientationPatient is 1", id="turned"),
        pytest.param(
            lambda data, k: setattr(data, "ImageOrientationPatient", [1.0, 0, 0, 0.7, 0.7, 0]),
            "two unit vectors at right angles",
            id="orientation not at right angles",
        ),
        pytest.param(at(lambda k: 4.55 * k if k < 20 else 91 + 5.0 * (k - 20)), "evenly spaced", id="j06_drifting"),
        pytest.param(at(lambda k: 8.0 * (k % 20)), "at the same place", id="two stacks under one UID"),
        pytest.param(at(lambda k: 8.0 * k + 8.0 * (k > 7)), "slices are missing after", id="e07_missing_slices"),
        pytest.param(halves(RescaleSlope="0"), "RescaleSlope must be finite and not 0", id="slope 0"),
        pytest.param(halves(RescaleIntercept="1e400"), "RescaleIntercept must be a finite number", id="intercept inf"),
        pytest.param(halves(RescaleIntercept="-1000"), "the numbers jump by 24 HU where", id="intercept differs"),
        pytest.param(
            halves(RescaleIntercept=None, RescaleSlope=None),
            "has no RescaleSlope and RescaleIntercept, unlike 20 of 40",
            id="no rescale in some",
        ),
        pytest.param(
            halves(PhotometricInterpretation="MONOCHROME1"), "is not MONOCHROME1, unlike 20 of 40", id="inverted"
        ),
    ],
)
def test_slices_that_make_no_volume_are_refused(folder: Path, phantom: Phantom, change, message) -> None:  # type: ignore[no-untyped-def]
    write_series(folder, phantom.ct_hu, phantom.affine, change)
    ran = prepare(folder)
    assert ran.code == 2 and message.replace(".", "\\") in ran.error.replace(".", "\\"), ran.text
    assert not (ran.output / "datalist.json").exists()


def test_slices_may_have_scales_of_their_own(folder: Path, phantom: Phantom) -> None:
    def scaled(data, number):  # type: ignore[no-untyped-def]
        pixels = np.frombuffer(data.PixelData, np.int16).astype(float)
        slope, intercept = 1 + number % 3, -1024 - 10 * (number % 2)
        data.RescaleSlope, data.RescaleIntercept = str(slope), str(intercept)
        data.PixelData = np.round((pixels - 1024 - intercept) / slope).astype(np.int16).tobytes()

    write_series(folder, phantom.ct_hu, phantom.affine, scaled)
    assert hu_off(prepare(folder), phantom) < 1


def test_a_report_in_colours_leaves_its_series(folder: Path, phantom: Phantom) -> None:
    paths = write_series(folder, phantom.ct_hu, phantom.affine)
    shutil.copy(paths[3], folder / "dose.dcm")
    edit(folder / "dose.dcm", SOPInstanceUID="2.25.99", SamplesPerPixel=3, PlanarConfiguration=0, BitsAllocated=8,
         BitsStored=8, HighBit=7, PhotometricInterpretation="RGB", PixelData=bytes(3 * 40 * 40))  # fmt: skip
    ran = prepare(folder)
    assert hu_off(ran, phantom) < 0.3 and "dose.dcm: colour images" in ran.text


def test_p_modality_is_told_by_the_class(folder: Path, phantom: Phantom) -> None:
    write_series(folder, phantom.ct_hu, phantom.affine, without("Modality"))
    assert hu_off(prepare(folder), phantom) < 0.3


def test_coronal_slices_are_a_volume_too(folder: Path, phantom: Phantom) -> None:
    def coronal(data, number):  # type: ignore[no-untyped-def]
        pixels = np.round(phantom.ct_hu[:, number].T + 1024).astype(np.int16)  # rows to the head, columns to the right
        data.ImageOrientationPatient = [-1.0, 0, 0, 0, 0, 1.0]
        first = np.diag([-1.0, -1.0, 1.0, 1.0]) @ phantom.affine @ [0, number, 0, 1]
        data.ImagePositionPatient = [float(value) for value in first[:3]]
        data.PixelData = pixels.tobytes()

    write_series(folder, phantom.ct_hu, phantom.affine, coronal)
    assert hu_off(prepare(folder), phantom) < 0.3


def test_two_fields_of_view_are_refused(folder: Path, phantom: Phantom) -> None:
    def crop(data, number):  # type: ignore[no-untyped-def]
        if number >= 20:
            data.PixelData = data.PixelData[: 2 * 40 * 30]
            data.Rows = 30

    write_series(folder, phantom.ct_hu, phantom.affine, crop)
    ran = prepare(folder)
    assert ran.code == 2 and "Rows and Columns is 30\\40, but 40\\40 in 20 of 40" in ran.error


def test_two_stacks_at_one_place_are_told_apart_in_the_message(folder: Path, phantom: Phantom) -> None:
    def kernel(name, uid):  # type: ignore[no-untyped-def]
        def change(data, number):  # type: ignore[no-untyped-def]
            data.ConvolutionKernel, data.SOPInstanceUID = name, f"2.25.{uid}.{number}"
            return f"{name}_{number}.dcm"

        return change

    write_series(folder, phantom.ct_hu, phantom.affine, kernel("B30f", 5))
    write_series(folder, phantom.ct_hu + 9, phantom.affine, kernel("B70f", 6))
    ran = prepare(folder)
    assert ran.code == 2 and "they differ in ConvolutionKernel B30f and B70f" in ran.error


def test_j02_raw_with_padding(folder: Path, phantom: Phantom) -> None:
    def raw(data, number):  # type: ignore[no-untyped-def]
        del data.RescaleSlope, data.RescaleIntercept
        pixels = np.frombuffer(data.PixelData, np.int16).reshape(40, 40).copy()
        y, x = np.mgrid[-19.5:20, -19.5:20]
        pixels[x**2 + y**2 > 19.5**2] = -2000
        data.PixelData = pixels.tobytes()

    write_series(folder, phantom.ct_hu, phantom.affine, raw)
    ran = prepare(folder)
    assert ran.code == 2 and "HU + 1024" in ran.error and "prepare --rescale 1,-1024" in ran.error
    mended = prepare(folder, rescale="1,-1024")
    (label,) = mended.labels().values()
    y, x = np.mgrid[-19.5:20, -19.5:20]
    inside = x**2 + y**2 <= 19.5**2
    assert np.abs(label - phantom.ct_hu)[inside].mean() < 0.3
    assert (label[~inside] == -1000).all()  # padding becomes air


def test_d11_metal_overflow(folder: Path, phantom: Phantom) -> None:
    ct = np.where(phantom.ct_hu < 0, 0, phantom.ct_hu)
    ct[18:22, 18:22, 18:22] = 40000
    ct = np.where(phantom.ct_hu < 0, phantom.ct_hu, ct)
    write_series(folder, ct, phantom.affine, signed=False)
    ran = prepare(folder)
    assert ran.code == 0 and (next(iter(ran.labels().values()))[19:21, 19:21, 19:21] == 3071).all()


def test_d06_and_j01_slice_thickness_differs_and_positions_do_not(folder: Path, phantom: Phantom) -> None:
    write_series(folder, phantom.ct_hu, phantom.affine, halves(SliceThickness=6.0))
    assert hu_off(prepare(folder), phantom) < 0.3


@pytest.mark.parametrize("marked", [True, False], ids=["j01_localizer", "d07_localizer_same_uid"])
def test_a_localizer_leaves_its_series(folder: Path, phantom: Phantom, marked: bool) -> None:
    paths = write_series(folder, phantom.ct_hu, phantom.affine)
    shutil.copy(paths[3], folder / "A0001.dcm")
    values = {"SOPInstanceUID": "2.25.99", "ImageOrientationPatient": [1, 0, 0, 0, 0, -1], "Rows": 20}
    values |= {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]} if marked else {}
    edit(folder / "A0001.dcm", **values, PixelData=bytes(2 * 20 * 40))
    ran = prepare(folder)
    assert hu_off(ran, phantom) < 0.3
    assert "A0001.dcm: localizer" in ran.text


def test_e06_copies_of_slices_are_dropped_and_named(folder: Path, phantom: Phantom) -> None:
    paths = write_series(folder, phantom.ct_hu, phantom.affine)
    for path in paths[5:15]:
        shutil.copy(path, path.with_name(f"{path.stem} (1).dcm"))
    ran = prepare(folder)
    assert hu_off(ran, phantom) < 0.3 and "copies of other slices of its series" in ran.text
    edit(paths[7].with_name("IM0007 (1).dcm"), PixelData=bytes(2 * 40 * 40))
    ran = prepare(folder)
    assert ran.code == 2 and "two slices of the series at the same place" in ran.error


def test_e18_slices_may_lie_in_many_folders(folder: Path, phantom: Phantom) -> None:
    write_series(folder, phantom.ct_hu, phantom.affine, lambda data, k: f"{k:03d}/IM.dcm")
    ran = prepare(folder)
    assert hu_off(ran, phantom) < 0.3
    (case,) = ran.cases().values()
    assert case["patient_id"] == "p1"


@pytest.mark.parametrize("shuffled", [False, True])
def test_e01_enhanced_multiframe(folder: Path, phantom: Phantom, shuffled: bool) -> None:
    order = np.random.default_rng(0).permutation(40).tolist() if shuffled else None
    write_enhanced(folder / "enhanced.dcm", phantom.ct_hu, phantom.affine, order)
    assert hu_off(prepare(folder), phantom) < 0.3


def test_e01_frames_of_unlike_scale_are_refused(folder: Path, phantom: Phantom) -> None:
    path = write_enhanced(folder / "enhanced.dcm", phantom.ct_hu, phantom.affine)
    data = pydicom.dcmread(path)
    item = pydicom.Dataset()
    item.RescaleSlope, item.RescaleIntercept = "2", "-1024"
    data.PerFrameFunctionalGroupsSequence[7].PixelValueTransformationSequence = pydicom.Sequence([item])
    data.save_as(path)
    ran = prepare(folder)
    assert ran.code == 2 and "RescaleSlope and RescaleIntercept" in ran.error


@pytest.mark.parametrize("meta", [True, False], ids=["no preamble", "no preamble, no meta header"])
def test_e02_no_preamble(folder: Path, phantom: Phantom, meta: bool) -> None:
    for path in write_series(folder, phantom.ct_hu, phantom.affine):
        raw = path.read_bytes()[132:]
        path.write_bytes(raw if meta else raw[raw.index(b"\x08\x00\x08\x00CS") :])
    assert hu_off(prepare(folder), phantom) < 0.3


def test_e16_monochrome1_ct_is_in_hu_too(folder: Path, phantom: Phantom) -> None:
    write_series(
        folder, phantom.ct_hu, phantom.affine, lambda data, k: setattr(data, "PhotometricInterpretation", "MONOCHROME1")
    )
    assert hu_off(prepare(folder), phantom) < 0.3
    shutil.rmtree(folder)
    write_series(folder, phantom.ct_hu, phantom.affine, lambda data, k: (
        setattr(data, "PhotometricInterpretation", "MONOCHROME1"), setattr(data, "BitsStored", 12),
        setattr(data, "HighBit", 11), None)[-1], signed=False)  # fmt: skip
    assert hu_off(prepare(folder), phantom) < 0.3


def test_p02_a_decimal_comma_is_a_point(folder: Path, phantom: Phantom) -> None:
    for path in write_series(folder, phantom.ct_hu, phantom.affine):
        raw = path.read_bytes()
        assert raw.count(b"8.0\\8.0") == 1
        path.write_bytes(raw.replace(b"8.0\\8.0", b"8,0\\8,0"))
    assert hu_off(prepare(folder), phantom) < 0.3


def test_d12_padding_below_the_scale_becomes_air(folder: Path, phantom: Phantom) -> None:
    ct = phantom.ct_hu.copy()
    ct[:2], ct[-2:] = -2000, -2000
    write_series(folder, ct, phantom.affine)
    ran = prepare(folder)
    assert ran.code == 0 and next(iter(ran.labels().values())).min() == -1000


def test_e04_dicomdir_and_no_endings(folder: Path, phantom: Phantom) -> None:
    paths = write_series(folder / "ct", phantom.ct_hu, phantom.affine, lambda data, k: f"I{k:07d}")
    directory = pydicom.dcmread(paths[0])
    directory.SOPClassUID = pydicom.uid.MediaStorageDirectoryStorage
    for keyword in ("Rows", "Columns", "Modality", "PixelData"):
        delattr(directory, keyword)
    save(directory, folder / "DICOMDIR")
    assert hu_off(prepare(folder), phantom) < 0.3


def test_j05_no_instance_number_and_rounded_positions(folder: Path, phantom: Phantom) -> None:
    def change(data, number):  # type: ignore[no-untyped-def]
        del data.InstanceNumber
        x, y, z = data.ImagePositionPatient
        data.ImagePositionPatient = [x, y, z + 0.004 * (-1) ** number]

    write_series(folder, phantom.ct_hu, phantom.affine, change)
    assert hu_off(prepare(folder), phantom) < 0.3


def test_a_damaged_slice_refuses_its_own_series_alone(folder: Path, phantom: Phantom) -> None:
    def named(uid: str):  # type: ignore[no-untyped-def]
        return lambda data, number: f"{uid}.{number + 1}.dcm"

    first = write_series(folder, phantom.ct_hu, phantom.affine, named("1.2"), uid="2.25.3", patient_id="a")
    write_series(folder, phantom.ct_hu, phantom.affine, named("1.3"), uid="2.25.4", patient_id="b")
    raw = first[-1].read_bytes()
    first[-1].write_bytes(raw[:-700])  # it says whose it is
    ran = prepare(folder, max_skipped=0.5)
    assert [case["patient_id"] for case in ran.cases().values()] == ["b"] and "1.2.40.dcm of its slices" in ran.text
    first[-1].write_bytes(bytes(len(raw)))  # it does not: both may be short of it
    assert prepare(folder, max_skipped=0.9).code == 2


def test_elements_behind_the_pixels_are_no_damage(folder: Path, phantom: Phantom) -> None:
    def private(data, number):  # type: ignore[no-untyped-def]
        data.add_new(0x7FE10010, "LO", "A MAKER")
        data.add_new(0x7FE11010, "OB", bytes(30))

    write_series(folder, phantom.ct_hu, phantom.affine, private)
    assert hu_off(prepare(folder), phantom) < 0.3


@pytest.mark.parametrize("cut", [True, False])
def test_files_that_end_elsewhere_are_refused_by_name(folder: Path, phantom: Phantom, cut: bool) -> None:
    path = write_series(folder, phantom.ct_hu, phantom.affine)[7]
    raw = path.read_bytes()
    path.write_bytes(raw[:-9] if cut else raw[:-100] + b"\1\2\3" + raw[-100:])
    ran = prepare(folder)
    assert ran.code == 2 and "IM0007.dcm of its slices" in ran.error
    assert ("cut, the last 9 bytes are missing" if cut else "behind the pixels are no element") in ran.error


@pytest.mark.parametrize("rows", [30, 42])
def test_pixels_of_another_number_than_the_header_states_are_refused(folder: Path, phantom: Phantom, rows: int) -> None:
    write_series(folder, phantom.ct_hu, phantom.affine, lambda data, number: setattr(data, "Rows", rows))
    ran = prepare(folder)
    assert ran.code == 2 and f"Rows and Columns need {rows * 80} bytes of pixels, and there are 3200" in ran.error


def test_padding_that_the_header_declares_is_air(folder: Path, phantom: Phantom) -> None:
    y, x = np.mgrid[-19.5:20, -19.5:20]
    outside = x**2 + y**2 > 19.5**2
    ct = np.where(outside[:, :, None], 0, phantom.ct_hu)
    write_series(folder, ct, phantom.affine, lambda data, number: data.add_new(0x00280120, "SS", 1024))
    ran = prepare(folder)
    assert ran.code == 0, ran.text
    (label,) = ran.labels().values()
    assert (label[outside] == -1000).all()


def test_one_series_of_two_patients_is_refused(folder: Path, phantom: Phantom) -> None:
    write_series(folder, phantom.ct_hu, phantom.affine, halves(PatientID="P1"))
    ran = prepare(folder)
    assert ran.code == 2 and "slices of one SeriesInstanceUID have the PatientID" in ran.error


def test_one_uid_for_two_scans_in_two_folders_keeps_them_apart(folder: Path, phantom: Phantom) -> None:
    moved = phantom.affine.copy()
    moved[:3, 3] += [5.5, 0, 2.7]
    for name, affine in (("a", phantom.affine), ("b", moved)):
        write_series(folder / name, phantom.ct_hu + ord(name), affine, patient_id="ANONYMOUS")
    assert {case["patient_id"] for case in prepare(folder).cases().values()} == {"a", "b"}


@pytest.mark.parametrize("kind", ["MIP", "MINIP"])
def test_projections_are_no_cts(folder: Path, phantom: Phantom, kind: str) -> None:
    write_series(folder / "ct", phantom.ct_hu, phantom.affine)
    write_series(folder / "mip", phantom.ct_hu, phantom.affine, lambda data, number: setattr(
        data, "ImageType", ["DERIVED", "SECONDARY", kind]), uid="2.25.12")  # fmt: skip
    ran = prepare(folder)
    assert hu_off(ran, phantom) < 0.3 and f"projections of a volume ({kind})" in ran.text


def test_objects_without_pixels_leave_the_series_alone(folder: Path, phantom: Phantom) -> None:
    paths = write_series(folder, phantom.ct_hu, phantom.affine)
    shutil.copy(paths[0], folder / "IM9999.dcm")
    raw_data = {"SOPClassUID": "1.2.840.10008.5.1.4.1.1.66", "SeriesInstanceUID": "2.25.11", "Rows": None}
    edit(folder / "IM9999.dcm", **raw_data, Columns=None, PixelData=None)
    ran = prepare(folder)
    assert hu_off(ran, phantom) < 0.3 and "IM9999.dcm: no images (CT)" in ran.text


def test_a_saved_screen_without_a_place_leaves_its_series(folder: Path, phantom: Phantom) -> None:
    paths = write_series(folder, phantom.ct_hu, phantom.affine)
    shutil.copy(paths[0], folder / "screen.dcm")
    edit(folder / "screen.dcm", SOPInstanceUID="2.25.99", Rows=20, ImagePositionPatient=None, PixelData=bytes(1600))
    ran = prepare(folder)
    assert hu_off(ran, phantom) < 0.3 and "screen.dcm: localizer, unmarked" in ran.text


def test_positions_that_are_rounded_to_one_decimal_are_even(folder: Path, phantom: Phantom) -> None:
    affine = phantom.affine.copy()
    affine[2, 2] = 0.625
    write_series(folder, phantom.ct_hu, affine, lambda data, number: setattr(
        data, "ImagePositionPatient", [round(float(value), 1) for value in data.ImagePositionPatient]))  # fmt: skip
    ran = prepare(folder, center="body")
    assert ran.code == 0, ran.text


def test_a_name_of_a_patient_never_becomes_a_path(folder: Path, phantom: Phantom) -> None:
    for percent in (0, 25, 50, 75):
        write_series(
            folder / f"{percent}", phantom.ct_hu, phantom.affine,
            lambda data, number, said=f"Gated, {percent}%": setattr(data, "SeriesDescription", said),
            uid=f"2.25.{percent + 1}", patient_id="../../../evil",
        )  # fmt: skip
    before = {path for path in folder.parent.rglob("*") if folder not in path.parents}
    ran = run("prepare", folder.parent / "out", input=folder, output=folder.parent / "out", phases=True, num_workers=1)
    assert ran.code == 0 and len(ran.cases()) == 1, ran.text
    new = {path for path in folder.parent.rglob("*") if folder not in path.parents} - before
    assert all(path == ran.output or ran.output in path.parents for path in new)


def test_a_series_is_whole_or_refused(folder: Path, phantom: Phantom) -> None:
    paths = write_series(folder, phantom.ct_hu, phantom.affine)
    paths[0].write_bytes(bytes(2000))  # the end of the scan: no gap tells of it
    ran = prepare(folder, max_skipped=0.9)
    assert ran.code == 2 and "IM0000.dcm of its slices, or beside them, cannot be read" in ran.error


def test_o03_mended_dicom_is_prepared_again(folder: Path, phantom: Phantom) -> None:
    paths = write_series(
        folder, phantom.ct_hu, phantom.affine, lambda data, k: setattr(data, "RescaleIntercept", "-1000")
    )
    assert hu_off(prepare(folder), phantom) == pytest.approx(24, abs=0.5)
    for path in paths:
        edit(path, RescaleIntercept="-1024")
    assert hu_off(prepare(folder), phantom) < 0.3


def test_e15_one_patient_id_for_all(folder: Path, phantom: Phantom) -> None:
    for name in ("a", "b", "c"):
        write_series(
            folder / name, phantom.ct_hu + ord(name), phantom.affine, uid=f"2.25.{ord(name)}", patient_id="ANONYMOUS"
        )
    assert {case["patient_id"] for case in prepare(folder).cases().values()} == {"a", "b", "c"}
    flat = folder.parent / "flat"
    for name in ("a", "b"):
        write_series(flat, phantom.ct_hu + ord(name), phantom.affine, lambda d, k, n=name: f"{n}{k}.dcm",
                     uid=f"2.25.{ord(name)}", patient_id="07")  # fmt: skip
    ran = prepare(flat)
    assert "all 2 CTs count as one patient's, 07" in ran.text and "--patients name" in ran.text
    assert "it fills as patients are added" not in ran.text


def test_reconstruct_is_refused_a_ct_slice(folder: Path, phantom: Phantom) -> None:
    paths = write_series(folder, phantom.ct_hu, phantom.affine)
    ran = run("reconstruct", folder, pa=paths[0], lat=paths[1], geometry="x2ct", out=folder / "ct.nii.gz")
    assert ran.code == 2 and "expected one grey radiograph" in ran.error
