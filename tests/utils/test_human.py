import pytest

from espnet_spire.utils.human import human_number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        # as they stand in the paper
        (4_400_000_000, "4.4B"),
        (645_000_000, "645M"),
        (69_000_000, "69M"),
        (5_100, "5.1K"),
        (19_200, "19.2K"),
        # and around the edges
        (0, "0"),
        (0.0, "0"),
        (0.054, "0.05"),
        (0.5, "0.5"),
        (1, "1"),
        (9.96, "10"),
        (99.96, "100"),
        (999, "999"),
        (999.4, "999"),
        (999.6, "1K"),
        (1000, "1K"),
        (999_499, "999K"),
        (999_600, "1M"),
        (2.5e12, "2.5T"),
        (-1500, "-1.5K"),
    ],
)
def test_human_number(value, text):
    assert human_number(value) == text
