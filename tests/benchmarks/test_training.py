"""The step time of a bundle whose cases are slices."""

import training

TINY = {"slice_size": 16, "num_slices": 3, "channels": [4, 8], "discriminator_channels": [4, 8], "batch_size": 2}


def test_slices_of_the_phase_generator_take_steps() -> None:
    parser = training.configure("ct_phase_pix2pix", ["small"], TINY)
    case = parser["train"]["dataset"][0]
    assert case["image"].shape == (3, 16, 16) and case["label"].shape == (1, 16, 16)
    assert training.measure(parser, steps=1)["step_ms"] > 0
