"""What every back-end that answers prompts has in common: prompts in, answers out."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import (
    Callable,
    Dict,
    Iterator,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    Union,
)

from espnet_spire.text.prompts import Turn
from espnet_spire.train.examples import encode_chatml_prompt, encode_plain_prompt
from espnet_spire.utils.digest import bytes_sha256, sampled_sha256
from espnet_spire.utils.errors import model_error
from espnet_spire.utils.progress import progress

# Token ids, BOS and all; or a plain prompt, to be encoded; or a conversation to be answered.
Prompt = Union[Sequence[int], str, Sequence[Turn]]

# What an answer depends on: weights, and the files that say how they are used.
_MODEL_FILES = ("*.safetensors", "*.bin", "*.json", "tokenizer.model")


class Answer(NamedTuple):
    """``ids``: without the end token; ``cut``: whether the limit came before the end.

    ``text``: what a server wrote, where it gives no ids; ``ids`` are then made from it.
    ``logprobs``: natural logarithm of the probability of each token and, unless it is ``cut``, of
    the end token behind them, where that was asked for.
    """

    ids: List[int]
    cut: bool
    text: Optional[str] = None
    logprobs: Optional[List[float]] = None


# What is asked next in a conversation, by the number of its prompt and the answer; ``None``: no
# more.
FollowUp = Callable[[int, Answer], Optional[Prompt]]
# Conversations that go on together where a back-end has no better way.
_TOGETHER = 512


class Answerer(ABC):
    """Answers prompts; subclasses say where the model runs.

    Args:
        tokenizer: the model's, see :func:`load_tokenizer`.
        max_new_tokens: limit of an answer.
        positions: for how many tokens the model has positions, if that is known.
    """

    def __init__(self, tokenizer, max_new_tokens: int, positions: Optional[int] = None) -> None:
        self.tokenizer = tokenizer
        self.max_new_tokens = max_new_tokens
        self.positions = positions

    def refused(self, prompts: Mapping[str, Sequence[int]]) -> Dict[str, str]:
        """Which prompts (token ids) leave no room for an answer, and why."""
        if self.positions is None:
            return {}
        return {
            key: f"a prompt of {len(ids)} tokens, and the model has {self.positions} positions"
            for key, ids in prompts.items()
            if len(ids) >= self.positions
        }

    @abstractmethod
    def stream(self, prompts: Sequence[Prompt]) -> Iterator[List[Tuple[int, Answer]]]:
        """Yield answers as they come, each with the index of its prompt."""

    def converse(
        self, prompts: Sequence[Prompt], follow_up: FollowUp
    ) -> Iterator[List[Tuple[int, List[Answer]]]]:
        """Yield the answers of conversations as they come, each with the index of its prompt.

        Args:
            follow_up: gives the second prompt, with what was said before, by the first answer.
        """
        for start in range(0, len(prompts), _TOGETHER):
            some = range(start, min(start + _TOGETHER, len(prompts)))
            found: Dict[int, List[Answer]] = {}
            for batch in self.stream([prompts[index] for index in some]):
                found.update((some[index], [answer]) for index, answer in batch)
            asked = {index: follow_up(index, found[index][0]) for index in some}
            asked = {index: prompt for index, prompt in asked.items() if prompt is not None}
            places = list(asked)
            for batch in self.stream(list(asked.values())):
                for index, answer in batch:
                    found[places[index]].append(answer)
            yield list(found.items())

    def __call__(self, prompts: Sequence[Prompt], desc: str = "decode") -> List[Answer]:
        """Answer prompts, in their order."""
        answers: Dict[int, Answer] = {}
        with progress(total=len(prompts), desc=desc, unit="utt") as bar:
            for batch in self.stream(prompts):
                answers.update(batch)
                bar.update(len(batch))
        return [answers[index] for index in range(len(prompts))]

    def encode(self, prompt: Prompt) -> List[int]:
        """The ids of a prompt, with one BOS where the tokenizer has one.

        Raises:
            SpireError: a conversation, and the tokenizer does not know the tokens of ChatML.
        """
        if isinstance(prompt, str):
            return encode_plain_prompt(self.tokenizer, prompt)
        if is_conversation(prompt):
            return encode_chatml_prompt(self.tokenizer, prompt)
        return list(prompt)

    def text(self, answer: Answer) -> str:
        """The answer as one line of text."""
        text = answer.text
        if text is None:
            text = self.tokenizer.decode(answer.ids, skip_special_tokens=True)
        return " ".join(text.split())


def is_conversation(prompt: Prompt) -> bool:
    """Whether a prompt is a list of turns."""
    return not isinstance(prompt, str) and len(prompt) > 0 and isinstance(prompt[0], Turn)


def positions_of(config) -> Optional[int]:
    """For how many tokens a model has positions, by its configuration."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def load_tokenizer(name: str):
    """The tokenizer of a model: directory or hub name.

    Raises:
        SpireError: there is none.
    """
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise model_error(name, error) from None


def model_identity(name: str) -> str:
    """What tells a model from others: of a directory its content, of the hub the commit.

    Raises:
        SpireError: neither a directory nor, as far as it can be reached, a model of the hub.
    """
    directory = Path(name)
    if directory.is_dir():
        files = sorted({path for kind in _MODEL_FILES for path in directory.glob(kind)})
        said = "".join(f"{path.name} {sampled_sha256(path)}\n" for path in files)
        return bytes_sha256(said.encode())
    from transformers.utils import cached_file

    try:
        # …/snapshots/<commit>/config.json
        return f"{name}@{Path(cached_file(name, 'config.json')).parent.name}"
    except (OSError, ValueError) as error:
        raise model_error(name, error) from None
