"""Numbers and names as a user writes them."""

from pathlib import Path

import pytest

from trct_monai.arguments import parse_counts, parse_names, parse_numbers


@pytest.mark.parametrize("text", ["0.5/1/2", "0.5,1,2", (0.5, 1, 2), [0.5, 1, 2]])
def test_numbers_may_be_separated_by_slashes_or_commas_or_be_a_sequence(text) -> None:
    assert parse_numbers(text, 3, "shares") == (0.5, 1.0, 2.0)


def test_any_number_of_numbers_and_a_single_one() -> None:
    assert parse_numbers("10/20", None, "diameters") == (10.0, 20.0)
    assert parse_numbers(7, 1, "width") == parse_numbers("7", 1, "width") == (7.0,)


@pytest.mark.parametrize("text", ["1/2", "1/2/3/4", "a/b/c", "nan/1/1", "inf/1/1", "1//2", "", 3, (1, 2, float("nan"))])
def test_what_is_not_so_many_finite_numbers_is_refused_with_an_example(text) -> None:
    with pytest.raises(ValueError, match=r"shares must be three numbers separated by /, such as 7/2/1, got"):
        parse_numbers(text, 3, "shares", "7/2/1")


def test_the_message_separates_as_its_example() -> None:
    with pytest.raises(ValueError, match="window must be two numbers separated by commas, such as -1000,500, got '1'"):
        parse_numbers("1", 2, "window", "-1000,500")
    with pytest.raises(ValueError, match="width must be one number, got 'wide'"):
        parse_numbers("wide", 1, "width")


def test_counts_are_whole_and_not_negative() -> None:
    assert parse_counts("400/50/50", 3, "split") == (400, 50, 50)
    for text in ("1.9/0/1", "-1/1/1"):
        with pytest.raises(ValueError, match=f"split must be whole numbers of 0 or more, such as 4/1/1, got '{text}'"):
            parse_counts(text, 3, "split", "4/1/1")


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("a, b,,c", ["a", "b", "c"]),
        (("a", "b"), ["a", "b"]),
        ((100012, 7), ["100012", "7"]),
        (0, ["0"]),
        (Path("a/b"), ["a/b"]),
        ("", []),
        (None, []),
    ],
)
def test_names_are_separated_by_commas_or_given_one_by_one(text, names) -> None:
    assert parse_names(text) == names
