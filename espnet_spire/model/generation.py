"""What ends an LM's answers, and which rows of its output matrix are no tokens."""

from typing import Any, List, Tuple

from espnet_spire.text.prompts import IM_END
from espnet_spire.utils.errors import model_error


def load_settings(name: str) -> Tuple[Any, Any]:
    """Configuration and generation settings of a model, without its weights.

    Args:
        name: directory or hub name.

    Raises:
        SpireError: there is no such model.
    """
    from transformers import AutoConfig, GenerationConfig

    try:
        config = AutoConfig.from_pretrained(name)
        try:
            generation = GenerationConfig.from_pretrained(name)
        except OSError:  # models without one say it in their configuration
            generation = GenerationConfig.from_model_config(config)
    except (OSError, ValueError) as error:
        raise model_error(name, error) from None
    return config, generation


def padding_rows(tokenizer, config) -> List[int]:
    """Rows that no token has, such as those that pad the matrix; they must never be chosen.

    Args:
        tokenizer: of the model.
        config: the model's, for the number of rows.
    """
    rows = config.get_text_config().vocab_size
    return sorted(set(range(rows)) - set(tokenizer.get_vocab().values()))


def end_tokens(tokenizer, generation_config) -> List[int]:
    """Every id that ends an answer: the model's and its tokenizer's EOS, and ``<|im_end|>``.

    Instruction-tuned models often come with the generation settings of their base, which know
    nothing of the end of a turn.
    """
    stated = generation_config.eos_token_id
    ids = {*(stated if isinstance(stated, (list, tuple)) else [stated]), tokenizer.eos_token_id}
    ids.add(tokenizer.get_vocab().get(IM_END))
    return sorted(ids - {None})
