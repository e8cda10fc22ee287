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


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("widht: 4", "conf.yaml: unknown key 'widht'; known are width, rate, name"),
        ("width: 4.5", "conf.yaml: width: 4.5 is not a int"),
        ("width: true", "conf.yaml: width: True is not a int"),
        ("name: 7", "conf.yaml: name: 7 is not a str"),
        ("rate: fast", "conf.yaml: rate: 'fast' is not a float"),
        ("rate: 1e-3", "conf.yaml: rate: '1e-3' is not a float"),  # YAML 1.1 wants 1.0e-3
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


def test_missing(tmp_path):
    with pytest.raises(SpireError, match="gone.yaml: no such file"):
        read_config(tmp_path / "gone.yaml", Settings)
