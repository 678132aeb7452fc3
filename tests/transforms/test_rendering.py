"""Cases without files: phantoms drawn from seeds, radiographs rendered where the network is."""

from itertools import islice

import pytest
import torch
from monai.transforms import MapTransform

from tests.devices.accelerator import ACCELERATOR, accelerator
from trct_monai.datasets import EndlessPhantoms, RepeatedCases
from trct_monai.geometry import Camera, preset, projection_matrices
from trct_monai.intensity import hu_to_unit
from trct_monai.phantoms import thorax_phantom
from trct_monai.projector import project_hu
from trct_monai.transforms import DrawPhantomd, RenderViews
from trct_monai.transforms.rendering import farther


def test_a_drawn_phantom_is_the_phantom_of_its_seed() -> None:
    case = DrawPhantomd(size=16)({"label": 7, "case_id": "seven"})
    expected = hu_to_unit(torch.from_numpy(thorax_phantom(7, 16).ct_hu)[None])
    assert case["case_id"] == "seven" and torch.equal(case["label"], expected)


def test_rendered_views_are_the_projections_of_the_volume() -> None:
    phantom = torch.from_numpy(thorax_phantom(7, 16).ct_hu)[None].clamp(-1024, 1476)
    batch = {"label": hu_to_unit(phantom)[None]}
    image, label, _, named = RenderViews(radiograph_size=32)(batch, "cpu", False)
    expected = project_hu(phantom, list(preset("x2ct", 32)), 20.0)
    torch.testing.assert_close(image[0], expected, atol=1e-3, rtol=1e-3)
    assert label is not None and torch.equal(label, batch["label"])
    torch.testing.assert_close(named["matrices"][0], projection_matrices(preset("x2ct")))


def test_rendered_views_change_by_chance_and_are_drawn() -> None:
    batch = {"label": torch.rand(2, 1, 8, 8, 8)}
    plain = RenderViews("circle-8", 16)(batch, "cpu", False)[0]
    changed, _, _, named = RenderViews("circle-8", 16, augmentation=1.0, min_views=8)(batch, "cpu", False)
    assert not torch.allclose(plain.sort(dim=1)[0], changed.sort(dim=1)[0])
    assert named["matrices"].shape == (2, 8, 3, 4)
    few = RenderViews("circle-8", 16, min_views=1, usual_views=[0, 4], usual_share=1.0)(batch, "cpu", False)
    assert torch.equal(few[0], plain[:, [0, 4]])
    usual = {"min_views": 1, "usual_views": [4, 0], "usual_share": 1.0}
    alone = RenderViews("circle-8", 16, **usual, alone_share=1.0)(batch, "cpu", False)
    assert torch.equal(alone[0], plain[:, [4]]) and alone[3]["matrices"].shape[1] == 1
    some = RenderViews("circle-8", 16, **usual, alone_share=0.5)
    assert {some(batch, "cpu", False)[0].shape[1] for _ in range(20)} == {1, 2}
    with pytest.raises(ValueError, match=r"alone_share must lie in \[0, 1\], got 2"):
        RenderViews("circle-8", 16, **usual, alone_share=2)


def test_random_cameras_are_those_that_the_matrices_tell() -> None:
    torch.manual_seed(0)
    phantom = torch.from_numpy(thorax_phantom(7, 16).ct_hu)[None].clamp(-1024, 1476)
    render = RenderViews("circle-8", 16, min_views=2, camera_share=1.0)
    image, _, _, named = render({"label": hu_to_unit(phantom)[None]}, "cpu", False)
    cameras = [Camera.from_world_to_detector(matrix.double(), (16, 16)) for matrix in named["matrices"][0]]
    torch.testing.assert_close(image[0], project_hu(phantom, cameras, 20.0), atol=2e-2, rtol=1e-2)
    distances = {round(sum(side**2 for side in camera.source or ()) ** 0.5, 1) for camera in cameras}
    assert len(distances) == 1 and 541 < distances.pop() < 1600


def test_a_camera_that_goes_farther_sees_as_much_of_the_isocentres_plane() -> None:
    camera = preset("x2ct", 16)[0]
    other = farther(camera, 1600.0)
    corners = torch.tensor([[140.0, 0, 100, 1], [-140, 0, -100, 1]], dtype=torch.float64)
    one, two = (corners @ projection_matrices([one])[0].double().T for one in (camera, other))
    torch.testing.assert_close(one[:, :2] / one[:, 2:], two[:, :2] / two[:, 2:], atol=1e-5, rtol=0)
    assert other.source == (0.0, -1600.0, 0.0) and farther(preset("parallel")[0], 1000.0) == preset("parallel")[0]


def test_a_changed_exposure_is_no_fact() -> None:
    batch = {"label": torch.rand(4, 1, 8, 8, 8)}
    assert bool(RenderViews("circle-8", 16)(batch, "cpu", False)[3]["exposed"].all())
    assert not RenderViews("circle-8", 16, augmentation=1.0)(batch, "cpu", False)[3]["exposed"].any()


def test_wrong_shares_and_distances_are_refused() -> None:
    with pytest.raises(ValueError, match=r"whole_share and camera_share must lie in \[0, 1\], got 2 and 0.0"):
        RenderViews(whole_share=2)
    with pytest.raises(ValueError, match="camera_distances must be two in mm, the shorter one first"):
        RenderViews(camera_distances=(1600.0, 541.0))


def test_rendered_views_stay_on_the_device_of_the_network() -> None:
    with accelerator():
        image, label, _, _ = RenderViews(radiograph_size=16, augmentation=0.5)(
            {"label": torch.rand(2, 1, 8, 8, 8)}, ACCELERATOR, True
        )
    assert label is not None and image.device == label.device == ACCELERATOR


class Seed(MapTransform):
    """Keeps the seed."""

    def __init__(self) -> None:
        super().__init__("label")

    def __call__(self, data: dict[str, int]) -> dict[str, int]:
        return dict(data)


def test_endless_phantoms_have_new_seeds_each_used_a_few_times() -> None:
    seeds = [case["label"] for case in islice(EndlessPhantoms(Seed(), first_seed=100, repeats=3, kept=4), 300)]
    assert seeds[::3] == list(range(100, 200))
    assert all(max(0, seed - 103) <= again - 100 <= seed - 100 for seed, again in zip(seeds[::3], seeds[1::3]))


def test_endless_phantoms_share_the_seeds_between_workers() -> None:
    loader = torch.utils.data.DataLoader(
        EndlessPhantoms(Seed(), first_seed=0, repeats=1), batch_size=None, num_workers=2, multiprocessing_context="fork"
    )
    assert sorted(case["label"] for case in islice(loader, 10)) == list(range(10))


def test_endless_phantoms_refuse_what_gives_nothing() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        EndlessPhantoms(Seed(), repeats=0)


class Counted(torch.utils.data.Dataset):
    """Numbers its cases in the order in which they are made."""

    def __init__(self) -> None:
        self.made = 0

    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> dict[str, int]:
        self.made += 1
        return {"label": self.made}


def test_repeated_cases_are_made_once_and_given_a_few_times() -> None:
    cases = RepeatedCases(Counted(), repeats=4, kept=8)
    given = [cases[index]["label"] for index in [*range(100)] * 8]
    made = cases.dataset.made
    assert 150 < made < 250 and set(given) == set(range(1, made + 1))
    newest = 0
    for label in given:
        newest = max(newest, label)
        assert label > newest - 8
    assert len(list(cases)) == len(cases) == 100


def test_repeated_cases_follow_their_random_state_and_forget() -> None:
    cases = RepeatedCases(Counted(), repeats=3)
    first = [cases.set_random_state(1)[index]["label"] for index in range(2)]
    assert first == [1, 2]  # the first one after that is always made
    orders = []
    for _ in range(2):
        cases.set_random_state(5)
        start = cases.dataset.made
        orders.append([cases[index]["label"] - start for index in range(50)])
    assert orders[0] == orders[1]
    with pytest.raises(ValueError, match="at least 1, got 0 and 48"):
        RepeatedCases(Counted(), repeats=0)
