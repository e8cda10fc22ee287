import pytest

from espnet_spire.utils.errors import SpireError
from espnet_spire.utils.rejected import check_rejected, rejected_line


def test_a_line():
    assert rejected_line("u", " cut\toff\n here ") == "u\tcut off here\n"


@pytest.mark.parametrize("count, total, share", [(0, 0, 0.0), (0, 5, 0.0), (2, 4, 0.5), (4, 4, 1)])
def test_a_share_may_be_unusable(count, total, share):
    check_rejected(count, total, share, first=("u", "why") if count else None)


def test_one_more_may_not():
    said = (
        r"^d: 3 of 4 utterances are unusable, first u: cut off \(all in r.tsv; --max_rejected"
        " allows a share; mend them and start again: only they are done again"
    )
    with pytest.raises(SpireError, match=said):
        check_rejected(3, 4, 0.5, first=("u", "cut\noff"), listed="r.tsv", where="d: ")
    with pytest.raises(SpireError, match=r"^1 of 4 .* first u: x \(--max_rejected allows"):
        check_rejected(1, 4, 0.0, first=("u", "x"))
