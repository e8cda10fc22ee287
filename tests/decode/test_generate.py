"""Greedy decoding: against a loop without cache or padding, and an LM with known answers."""

import pytest
import torch
from helpers_bases import make_kind, read_json, write_json

from espnet_spire.decode.generate import Answer, Generator
from espnet_spire.utils.errors import SpireError

PROMPTS = [[1, 300, 5, 9], [1, 44], [1, *range(260, 290)], [1, 301, 302, 303, 7, 7, 7], [1]]


def greedy(model, prompt, count, tokens, eos):
    """Argmax over the real tokens, the whole sequence anew for each."""
    ids = list(prompt)
    for _ in range(count):
        with torch.no_grad():
            token = int(model(torch.tensor([ids])).logits[0, -1, :tokens].argmax())
        if token in eos:
            return Answer(ids[len(prompt) :], False)
        ids.append(token)
    return Answer(ids[len(prompt) :], True)


def with_slots(generator):
    """Notes with how many slots, and for which prompts, the generator works."""
    calls, inner = [], generator._answer

    def answer(prompts, part, count, follow_up):
        calls.append((count, [len(prompts[index]) for index in part]))
        return inner(prompts, part, count, follow_up)

    generator._answer = answer
    return calls


def test_batches_equal_one_at_a_time_and_a_loop_without_cache(lm_dir):
    one = Generator(lm_dir, batch_tokens=1, max_new_tokens=12)
    batch = Generator(lm_dir, batch_tokens=10**6, max_new_tokens=12)
    calls = with_slots(batch)
    found = batch(PROMPTS)
    assert calls == [(5, [31, 7, 4, 2, 1])]  # all at a time
    assert found == one(PROMPTS)
    expected = [
        greedy(one.model, prompt, 12, len(one.tokenizer), one.eos_ids) for prompt in PROMPTS
    ]
    assert found == expected
    assert len({tuple(answer.ids) for answer in found}) > 1
    assert batch.alone == 0


def test_slots_obey_their_budget(lm_dir):
    generator = Generator(lm_dir, batch_tokens=70, max_new_tokens=20)
    calls = with_slots(generator)
    generator(PROMPTS * 3)
    # 70 // (31 + 20) = 1 slot for 8 prompts, 70 // (4 + 20) = 2 for the rest.
    assert calls == [(1, [31, 31, 31, 7, 7, 7, 4, 4]), (2, [4, 2, 2, 2, 1, 1, 1])]


def test_no_prompts(lm_dir):
    assert Generator(lm_dir)([]) == []


# An LM that is a table: the next token depends on the last one alone ---------------------------

END, PADDING_ROW = 2, 400


@pytest.fixture(scope="module")
def table_lm(lm_dir, tmp_path_factory):
    """A real Llama whose blocks add nothing, so that it writes what a table says.

    Embeddings are unit vectors, and row n of the output matrix is large where n follows. The
    largest logit is always that of a row that pads the matrix.
    """
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(lm_dir)
    rows = 448
    assert len(tokenizer) < PADDING_ROW < rows
    config = LlamaConfig(
        vocab_size=rows,
        hidden_size=rows,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        bos_token_id=1,
        eos_token_id=END,
    )
    model = LlamaForCausalLM(config)
    following = {token: token for token in range(rows)}
    following.update({300: 301, 301: 302, 302: END, 310: END, 320: 321, 321: 320})
    with torch.no_grad():
        model.model.layers[0].self_attn.o_proj.weight.zero_()
        model.model.layers[0].mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(rows))
        model.lm_head.weight.zero_()
        for token, after in following.items():
            model.lm_head.weight[after, token] = 1
        model.lm_head.weight[PADDING_ROW] = 100
    out = tmp_path_factory.mktemp("table")
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    return str(out)


def test_it_stops_at_the_end_token_and_says_what_was_cut(table_lm):
    generator = Generator(table_lm, max_new_tokens=5)
    prompts = [[1, 310], [1, 7, 300], [1, 320], [1, 9, 9, 9, 301], [1, 300]]
    assert generator(prompts) == [
        Answer([], False),
        Answer([301, 302], False),
        Answer([321, 320, 321, 320, 321], True),
        Answer([302], False),
        Answer([301, 302], False),
    ]


def test_an_answer_that_just_fits_is_not_cut(table_lm):
    assert Generator(table_lm, max_new_tokens=3)([[300]]) == [Answer([301, 302], False)]
    assert Generator(table_lm, max_new_tokens=2)([[300]]) == [Answer([301, 302], True)]


def test_padding_rows_would_have_the_largest_logit(table_lm):
    generator = Generator(table_lm, max_new_tokens=2)
    with torch.no_grad():
        logits = generator.model(torch.tensor([[1, 300]])).logits[0, -1]
    assert int(logits.argmax()) == PADDING_ROW
    assert generator([[1, 300]])[0].ids == [301, 302]
    assert generator.padding_rows == list(range(387, 448))


def test_several_end_tokens(table_lm):
    generator = Generator(table_lm, max_new_tokens=5)
    generator.eos_ids = [END, 302]
    assert generator([[300], [310]]) == [Answer([301], False), Answer([], False)]


def test_text_is_one_line_without_special_tokens(table_lm):
    generator = Generator(table_lm)
    ids = generator.tokenizer(" the cook\n\ncuts  bread", add_special_tokens=False).input_ids
    assert generator.text(Answer([1, *ids, 386], False)) == "the cook cuts bread"
    assert generator.text(Answer([], False)) == ""


def test_a_model_that_is_not_there(tmp_path):
    (tmp_path / "none").mkdir()
    with pytest.raises(SpireError) as caught:
        Generator(str(tmp_path / "none"))
    assert f"--model {tmp_path}/none" in str(caught.value) and "\n" not in str(caught.value)


def test_a_model_without_any_end_token(tmp_path):
    make_kind("llama-3", tmp_path)
    for name in ("tokenizer_config.json", "config.json", "generation_config.json"):
        kept = {k: v for k, v in read_json(tmp_path / name).items() if "eos_token" not in k}
        write_json(tmp_path / name, kept)
    with pytest.raises(SpireError, match="nothing says which token ends an answer; set eos_token"):
        Generator(str(tmp_path))
