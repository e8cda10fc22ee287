"""Answers side by side are those of transformers' ``generate`` for each alone, for every kind."""

import random

import pytest
import torch
from helpers_bases import KINDS, make_kind

from espnet_spire.decode import generate
from espnet_spire.decode.generate import Generator
from espnet_spire.decode.search import Search
from espnet_spire.decode.slots import can_run

# Around borders of attention's blocks and of sliding windows, and one of each other length.
LENGTHS = [1, 1, 2, 3, 15, 16, 17, 32, 63, 64, 65, 100]
NEW = 9


@pytest.fixture(scope="module", params=KINDS)
def kind(request, tmp_path_factory):
    """A generator with a few slots, whose answers end after all sorts of lengths; its prompts."""
    folder = tmp_path_factory.mktemp("side") / request.param
    make_kind(request.param, folder, surplus=3)
    generator = Generator(str(folder), max_new_tokens=NEW, batch_tokens=330, logprobs=True)
    rows, rng = len(generator.tokenizer), random.Random(1)
    # As if so many tokens ended an answer. Gemma's one matrix repeats what it reads.
    generator.eos_ids = list(range(3, rows, 3 if request.param == "gemma" else 7))
    return generator, [[rng.randrange(rows) for _ in range(length)] for length in LENGTHS]


def plain(answers):
    return [answer._replace(logprobs=None) for answer in answers]


def alone(generator, prompts, kept={}):  # noqa: B006
    for prompt in prompts:
        key = (generator.model.config.model_type, generator.model.name_or_path, *prompt)
        if key not in kept:
            kept[key] = generator._generate([prompt])[0]
    return [
        kept[(generator.model.config.model_type, generator.model.name_or_path, *prompt)]
        for prompt in prompts
    ]


def close(ours, theirs):
    return all(
        torch.allclose(torch.tensor(a.logprobs), torch.tensor(b.logprobs), atol=1e-4)
        for a, b in zip(ours, theirs, strict=True)
    )


def test_each_is_as_if_alone(kind):
    generator, prompts = kind
    assert generator._has_slots
    found, expected = generator(prompts), alone(generator, prompts)
    assert plain(found) == plain(expected)
    lengths = {len(answer.ids) for answer in found}
    assert len(lengths) > (1 if 0 in lengths else 3) and {answer.cut for answer in found} == {
        True,
        False,
    }
    assert close(found, expected)


def test_logprobs_are_those_of_generate(kind):
    generator, prompts = kind
    for prompt in prompts[::5]:
        (answer,) = generator([prompt])
        output = generator.model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            max_new_tokens=NEW,
            do_sample=False,
            eos_token_id=generator.eos_ids,
            pad_token_id=0,
            suppress_tokens=generator.padding_rows,
            output_scores=True,
            return_dict_in_generate=True,
        )
        scores = generator.model.compute_transition_scores(
            output.sequences, output.scores, normalize_logits=True
        )
        assert torch.allclose(torch.tensor(answer.logprobs), scores[0], atol=1e-4)


def test_second_turns_are_as_if_asked_anew(kind):
    generator, prompts = kind

    def follow_up(index, answer):
        """Most go on with all that was said; some with a part of it; every fifth is over."""
        said = answer.ids[: -1 if index % 4 == 0 else None]
        return None if index % 5 == 4 else [*prompts[index], *said, *range(5, 6 + index % 9)]

    found = dict(pair for part in generator.converse(prompts, follow_up) for pair in part)
    assert sorted(found) == list(range(len(prompts)))
    for index, prompt in enumerate(prompts):
        (first,) = alone(generator, [prompt])
        second = follow_up(index, first)
        expected = [first, *alone(generator, [] if second is None else [second])]
        assert plain(found[index]) == plain(expected)
        assert close(found[index], expected)


def test_what_was_said_is_not_encoded_again(kind, monkeypatch):
    generator, prompts = kind
    fed = []
    inner = generate.Slots.extend
    monkeypatch.setattr(
        generate.Slots,
        "extend",
        lambda self, rows, tokens, starts: (
            fed.extend(map(len, tokens)) or inner(self, rows, tokens, starts)
        ),
    )
    follow_up = lambda index, answer: [*prompts[index], *answer.ids, 5, 6]  # noqa: E731
    found = dict(pair for part in generator.converse(prompts, follow_up) for pair in part)
    again = generator.alone
    # The last token of an answer that was cut has not been fed yet.
    assert sorted(fed) == sorted(2 + found[index][0].cut for index in found) or again


def test_choices_within_rounding_are_made_by_generate(kind, monkeypatch):
    generator, prompts = kind
    monkeypatch.setattr(generate, "SAFE_MARGIN", 1e9)
    before = generator.alone
    assert plain(generator(prompts)) == plain(alone(generator, prompts))
    assert generator.alone - before == len(prompts)


def test_drawn_answers_do_not_depend_on_the_batch(kind):
    generator, prompts = kind
    generator.search, generator._checks = Search(do_sample=True, top_p=0.9, seed=4), False
    try:
        found = generator(prompts)
        assert plain(found[::-1]) == plain(generator(prompts[::-1]))
        assert plain(found[3:4]) == plain(generator(prompts[3:4]))
        generator.search = Search(do_sample=True, top_p=0.9, seed=5)
        assert plain(generator(prompts)) != plain(found)
    finally:
        generator.search, generator._checks = Search(), True


def test_beams_are_those_of_transformers(kind):
    generator, prompts = kind
    generator.search, generator._has_slots = Search(num_beams=3), False
    try:
        found = generator(prompts[::4])
        for prompt, answer in zip(prompts[::4], found, strict=True):
            output = generator.model.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
                max_new_tokens=NEW,
                do_sample=False,
                num_beams=3,
                eos_token_id=generator.eos_ids,
                pad_token_id=0,
                suppress_tokens=generator.padding_rows,
            )[0, len(prompt) :].tolist()
            assert answer.ids == output[: len(answer.ids)]
            assert answer.cut or output[len(answer.ids)] in generator.eos_ids
    finally:
        generator.search, generator._has_slots = Search(), True


def test_rotations_that_depend_on_the_batch_are_left_to_transformers(kind):
    generator, _ = kind
    model = generator.model
    assert can_run(model)
    before = model.config.rope_parameters
    model.config.rope_parameters = {**before, "rope_type": "dynamic"}
    try:
        assert not can_run(model)
    finally:
        model.config.rope_parameters = before
