from dataclasses import dataclass, field
from typing import List, Optional

import pytest

from espnet_spire.utils.config import read_config
from espnet_spire.utils.errors import SpireError


@dataclass
class Settings:
    width: int = 8
    rate: float = 0.5
    name: str = "small"
    fast: bool = False
    limit: Optional[int] = None
    sizes: List[int] = field(default_factory=lambda: [1])

    def __post_init__(self):
        if self.width < 1:
            raise SpireError(f"width: {self.width} must be above 0")


def read(tmp_path, text):
    path = tmp_path / "conf.yaml"
    path.write_text(text)
    return read_config(path, Settings)


def test_defaults(tmp_path):
    assert read_config(None, Settings) == Settings()
    assert read(tmp_path, "") == Settings()
    assert read(tmp_path, "# nothing but a comment\n") == Settings()


def test_values(tmp_path):
    text = "width: 4\nrate: 1\nname: big\nfast: true\nlimit: 3\nsizes: [2, 3]\n"
    settings = read(tmp_path, text)
    assert settings == Settings(4, 1.0, "big", True, 3, [2, 3])
    assert isinstance(settings.rate, float)
    # words in YAML 1.1, which wants 1.0e-3
    assert read(tmp_path, "rate: 1e-3").rate == 0.001
    assert read(tmp_path, "rate: 2.5e-4").rate == 0.00025


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("widht: 4", "conf.yaml: unknown key 'widht'; known are width, rate, name"),
        ("width: 4.5", "conf.yaml: width: 4.5 is not a int"),
        ("width: true", "conf.yaml: width: True is not a int"),
        ("name: 7", "conf.yaml: name: 7 is not a str"),
        ("rate: fast", "conf.yaml: rate: 'fast' is not a float"),
        ("rate: true", "conf.yaml: rate: True is not a float"),
        ("rate: [1.0]", "conf.yaml: rate: .1.0. is not a float"),
        ("width: 1e3", "conf.yaml: width: '1e3' is not a int"),
        ("fast: 1", "conf.yaml: fast: 1 is not a bool"),
        ("width: 0", "conf.yaml: width: 0 must be above 0"),
        ("sizes: 3", "conf.yaml: sizes: 3 is not a list"),
        ("width: [1", "conf.yaml: not valid YAML: .*line 1"),
        ("- width", "conf.yaml: 'key: value' lines were expected"),
        ("width", "conf.yaml: 'key: value' lines were expected, not 'width'"),
    ],
)
def test_errors_name_file_and_key(tmp_path, text, message):
    with pytest.raises(SpireError, match=message) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


def test_not_utf8(tmp_path):
    (tmp_path / "conf.yaml").write_bytes(b"name: \xff\n")
    with pytest.raises(SpireError, match="conf.yaml: not valid YAML"):
        read_config(tmp_path / "conf.yaml", Settings)


def test_missing(tmp_path):
    with pytest.raises(SpireError, match="gone.yaml: no such file"):
        read_config(tmp_path / "gone.yaml", Settings)
