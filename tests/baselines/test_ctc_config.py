from pathlib import Path

import pytest

from espnet_spire.baselines.ctc_config import CtcConfig
from espnet_spire.utils.config import read_config
from espnet_spire.utils.errors import SpireError

CONF = Path(__file__).resolve().parents[2] / "conf"


def test_the_papers_settings():
    """Appendix B: 50 epochs, dropout 0.3, learning rate 1e-4, warm-up ratio 0.15, 3 layers."""
    config = read_config(CONF / "train_ctc.yaml", CtcConfig)
    assert (config.num_epochs, config.dropout, config.learning_rate) == (50, 0.3, 1e-4)
    assert (config.warmup_ratio, config.head_layers) == (0.15, 3)
    assert config == CtcConfig(micro_batch_utterances=16)  # the rest are the defaults
    read_config(CONF / "mini_train_ctc.yaml", CtcConfig)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("batch_utterances: 5", "no multiple of micro_batch_utterances"),
        ("dropout: 1.0", "dropout: 1.0 is not from 0 to below 1"),
        ("encoder_dropout: no", "encoder_dropout"),
        ("num_epochs: 0", "num_epochs: 0.0 must be above 0"),
        ("dtype: float16", "choose auto, float32 or bfloat16"),
        ("epochs: 3", "unknown key 'epochs'"),
    ],
)
def test_wrong_settings(tmp_path, line, message):
    (tmp_path / "c.yaml").write_text(line + "\n")
    with pytest.raises(SpireError, match=message):
        read_config(tmp_path / "c.yaml", CtcConfig)
