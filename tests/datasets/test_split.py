import pytest

from trct_monai.datasets.split import check_fractions, find_leaks, read_lists, split, split_by_hash, split_by_lists

SHARES = (0.7, 0.15, 0.15)


def make_cases(*patients, per_patient=1):
    return [
        {"case_id": f"{patient}_{i}", "patient_id": patient, "voxels": f"{patient}{i}"}
        for patient in patients
        for i in range(per_patient)
    ]


def section_of(sections):
    return {case["patient_id"]: name for name, cases in sections.items() for case in cases}


def test_a_patient_never_changes_sides_when_others_come():
    few = section_of(split_by_hash(make_cases(*map(str, range(0, 100, 7))), SHARES, seed=0))
    many = section_of(split_by_hash(make_cases(*map(str, range(100))), SHARES, seed=0))
    assert all(many[patient] == name for patient, name in few.items())


def test_shares_are_kept_seeds_differ_and_patients_stay_whole():
    cases = make_cases(*map(str, range(2000)), per_patient=2)
    sections = split_by_hash(cases, SHARES, seed=0)
    assert [len(sections[name]) / len(cases) for name in sections] == pytest.approx(SHARES, abs=0.03)
    assert find_leaks(sections) == []
    assert section_of(sections) != section_of(split_by_hash(cases, SHARES, seed=1))


def test_leaks_of_patients_and_of_voxels_are_named():
    a, b = make_cases("a", "b")
    assert "patient a in training (a_0) and test (a_0)" in find_leaks({"training": [a], "test": [a]})[0]
    leaks = find_leaks({"training": [a], "test": [b | {"voxels": a["voxels"]}]})
    assert len(leaks) == 1 and "same voxels" in leaks[0] and "a_0" in leaks[0] and "b_0" in leaks[0]


@pytest.mark.parametrize("fractions", ["0.7/0.3", "a/b/c", "0/0/0", "1/-1/1", 0.7, "nan/1/1", "inf/1/1"])
def test_wrong_fractions_are_refused(fractions):
    with pytest.raises(ValueError, match="fractions must"):
        check_fractions(fractions)


def write_lists(folder, train, test):
    paths = folder / "train.txt", folder / "test.txt"
    for path, names in zip(paths, (train, test)):
        path.write_text("\n".join(names) + "\n", encoding="utf-8")
    return paths


def test_lists_split_by_patient_and_leave_out_the_unlisted(tmp_path, capsys):
    lists = read_lists(*write_lists(tmp_path, ["LIDC-IDRI-0001.2000.1", "a"], ["LIDC-IDRI-0003.2000.1"]))
    cases = make_cases("LIDC-IDRI-0001", "LIDC-IDRI-0003", "a", "b")
    sections = split_by_lists(cases, lists, (1, 0, 0), seed=0)
    assert section_of(sections) == {"LIDC-IDRI-0001": "training", "a": "training", "LIDC-IDRI-0003": "test"}
    assert "1 cases in neither list are left out: b_0" in capsys.readouterr().out


def test_lists_need_a_share_for_training_or_validation(tmp_path):
    lists = read_lists(*write_lists(tmp_path, ["a"], ["b"]))
    with pytest.raises(ValueError, match="one of them must be above 0, such as 0.8/0.2/0, got 0/0/1"):
        split_by_lists(make_cases("a", "b"), lists, check_fractions("0/0/1"), seed=0)


def test_a_patient_in_both_lists_is_refused_by_name_or_put_on_one_side(tmp_path):
    paths = write_lists(tmp_path, ["LIDC-IDRI-0001.2000.1", "b"], ["LIDC-IDRI-0001.2000.2", "c"])
    with pytest.raises(ValueError, match="the split leaks: LIDC-IDRI-0001 in both"):
        read_lists(*paths)
    assert read_lists(*paths, leaks_to="test") == {"training": {"b"}, "test": {"LIDC-IDRI-0001", "c"}}
    assert read_lists(*paths, leaks_to="training")["test"] == {"c"}
    with pytest.raises(ValueError, match="leaks_to must be"):
        read_lists(*paths, leaks_to="train")


def test_the_leak_of_the_published_lists_is_found(shared):
    folder = shared / "splits"
    with pytest.raises(ValueError, match="leaks: LIDC-IDRI-0442 in both"):
        read_lists(folder / "x2ctgan_lidc_train.txt", folder / "x2ctgan_lidc_test.txt")


def test_split_refuses_what_it_cannot_do(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        split(str(tmp_path / "gone"))
    with pytest.raises(ValueError, match="no prepared cases"):
        split(str(tmp_path))
    with pytest.raises(ValueError, match="by must be hash or lists"):
        split(str(tmp_path), by="chance")
    with pytest.raises(ValueError, match="needs --train_list"):
        split(str(tmp_path), by="lists")
    with pytest.raises(ValueError, match="need --by lists"):
        split(str(tmp_path), train_list="a")
