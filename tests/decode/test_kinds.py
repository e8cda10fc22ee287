"""Decoding with an instruction-tuned model of every kind of base, exported as it will be."""

import shutil

import pytest
import torch
from helpers_bases import KINDS, make_kind, read_json, write_json
from safetensors.torch import load_file

from espnet_spire.decode.generate import Answer, Generator
from espnet_spire.decode.jobs import encode_turns
from espnet_spire.model.export import export
from espnet_spire.text import prompts
from espnet_spire.text.jobs import parse_job
from espnet_spire.text.prompts import Turn
from espnet_spire.text.vocabulary import extend_vocabulary
from espnet_spire.train.checkpoints import advance_pointer, write_manifest
from espnet_spire.train.examples import encode_chatml_prompt
from espnet_spire.utils.errors import SpireError

ASKED = [
    prompts.speech_instruction([3, 19, 3, 0], "en"),
    prompts.speech_instruction(list(range(20)) * 2, "de"),
    prompts.mt_instruction("en", "de", "The cat sat on the mat."),
    prompts.mt_instruction("zh", "en", "今天天气很好。"),
    "x",
]


@pytest.fixture(scope="module", params=KINDS)
def kind(request, tmp_path_factory):
    """``base``, ``start`` (extended) and ``model`` (exported) of one kind in a directory."""
    folder = tmp_path_factory.mktemp("kinds") / request.param
    make_kind(request.param, folder / "base", surplus=3)
    extend_vocabulary(str(folder / "base"), 20, folder / "start")
    # What a training without ZeRO leaves, weights untouched.
    step = folder / "train" / "step_1"
    step.mkdir(parents=True)
    weights = {f"lm.{k}": v for k, v in load_file(folder / "start" / "model.safetensors").items()}
    torch.save({"module": weights}, step / "mp_rank_00_model_states.pt")
    write_manifest(step, {})
    advance_pointer(folder / "train", "step_1", keep=1, finished=True)
    export(folder / "train", folder / "start", folder / "model", instruct=True, dtype="float32")
    return folder


def table_model(model, out, following):
    """A copy whose blocks add nothing, so that the next token follows from the last one alone.

    Embeddings are unit vectors; a token that ``following`` lacks repeats itself. Rows that pad
    the matrix always have the largest logit.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    shutil.copytree(model, out)
    config, tokens = AutoConfig.from_pretrained(model), len(AutoTokenizer.from_pretrained(model))
    rows = config.vocab_size
    assert rows > tokens
    config.update({"hidden_size": rows, "num_hidden_layers": 1, "tie_word_embeddings": False})
    if hasattr(config, "layer_types"):
        config.layer_types = config.layer_types[:1]
    lm = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        lm.model.layers[0].self_attn.o_proj.weight.zero_()
        lm.model.layers[0].mlp.down_proj.weight.zero_()
        lm.model.embed_tokens.weight.copy_(torch.eye(rows))
        lm.lm_head.weight.zero_()
        for token in range(tokens):
            lm.lm_head.weight[following.get(token, token), token] = 1
        lm.lm_head.weight[tokens:] = 2
    settings = (out / "generation_config.json").read_bytes()
    lm.save_pretrained(out)
    (out / "generation_config.json").write_bytes(settings)
    return out


def greedy(generator, prompt, count):
    """Argmax over the real tokens, the whole sequence anew for each."""
    ids = list(prompt)
    for _ in range(count):
        with torch.no_grad():
            logits = generator.model(torch.tensor([ids])).logits[0, -1]
        token = int(logits[: len(generator.tokenizer)].argmax())
        if token in generator.eos_ids:
            return Answer(ids[len(prompt) :], False)
        ids.append(token)
    return Answer(ids[len(prompt) :], True)


def test_prompts_begin_with_bos_where_there_is_one(kind):
    generator = Generator(str(kind / "model"))
    tokenizer = generator.tokenizer
    bos = None if kind.name == "qwen" else tokenizer.bos_token_id
    names = {"gemma": "<bos>", "qwen": None, "llama-3": "<|begin_of_text|>"}
    assert tokenizer.bos_token == names.get(kind.name, "<s>")
    first, unit = tokenizer.convert_tokens_to_ids(["<|im_start|>", chr(0xF0000)])
    for content in ASKED:
        ids = encode_chatml_prompt(tokenizer, [Turn("user", content)])
        assert ids[: ids.index(first)] == ([] if bos is None else [bos])
        assert ids.count(first) == 2
        conversation = [{"role": "user", "content": content}]
        rendered = tokenizer.apply_chat_template(conversation, add_generation_prompt=True)
        assert list(rendered["input_ids"]) == ids
    ids = encode_chatml_prompt(tokenizer, [Turn("user", ASKED[0])])
    assert [index - unit for index in ids if unit <= index < unit + 20] == [3, 19, 3, 0]


def test_batches_equal_one_at_a_time_and_a_loop(kind):
    one = Generator(str(kind / "model"), batch_tokens=1, max_new_tokens=8)
    batch = Generator(str(kind / "model"), batch_tokens=10**6, max_new_tokens=8)
    asked = [encode_chatml_prompt(one.tokenizer, [Turn("user", content)]) for content in ASKED]
    assert len({len(ids) for ids in asked}) == len(asked)
    found = batch(asked)
    assert found == one(asked) == [greedy(one, prompt, 8) for prompt in asked]


def test_it_ends_where_the_turn_ends_and_no_row_is_chosen_that_is_no_token(kind, tmp_path):
    start = Generator(str(kind / "start")).tokenizer
    im_end, mark = start.convert_tokens_to_ids(["<|im_end|>", "<PAD>"])
    # The newline behind "assistant" begins the answer: two words, then the end of the turn.
    newline = encode_chatml_prompt(start, [Turn("user", "x")])[-1]
    one, two = start(" the cat", add_special_tokens=False).input_ids[-2:]
    following = {newline: one, one: two, two: im_end, im_end: im_end, mark: im_end}
    generator = Generator(str(table_model(kind / "model", tmp_path / "m", following)))
    assert generator.eos_ids == [im_end]
    asked = [encode_chatml_prompt(generator.tokenizer, [Turn("user", text)]) for text in ASKED]
    with torch.no_grad():
        logits = generator.model(torch.tensor([asked[0]])).logits[0, -1]
    assert int(logits.argmax()) >= len(generator.tokenizer)
    assert generator(asked) == [Answer([one, two], False)] * len(asked)
    assert generator([[mark], [*asked[4], 5]])[0] == Answer([], False)
    assert generator.text(Answer([one, two], False)) == start.decode([one, two]).strip()


def test_settings_of_the_base_do_not_keep_it_from_ending(kind, tmp_path):
    """Generation settings that were forgotten: the base's end token, its way to sample."""
    tokenizer = Generator(str(kind / "start")).tokenizer
    im_end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    newline = encode_chatml_prompt(tokenizer, [Turn("user", "x")])[-1]
    the, cat = tokenizer(" the cat", add_special_tokens=False).input_ids[-2:]
    following = {newline: the, the: cat, cat: im_end}
    model = table_model(kind / "model", tmp_path / "m", following)
    stale = read_json(kind / "base" / "generation_config.json")
    assert stale["eos_token_id"] == tokenizer.eos_token_id != im_end
    stale.update(
        {
            **{"do_sample": True, "temperature": 3.0, "top_k": 5, "repetition_penalty": 9.0},
            **{"no_repeat_ngram_size": 1, "min_new_tokens": 6, "num_beams": 2},
            **{"forced_eos_token_id": 7, "bad_words_ids": [[the]], "pad_token_id": -1},
        }
    )
    write_json(model / "generation_config.json", stale)
    generator = Generator(str(model), max_new_tokens=8)
    assert generator.eos_ids == sorted({stale["eos_token_id"], im_end})
    prompt = encode_chatml_prompt(generator.tokenizer, [Turn("user", "the cat the cat")])
    assert generator([prompt, [cat]]) == [Answer([the, cat], False), Answer([], False)]


def test_a_base_that_does_not_know_what_it_is_asked_is_refused(kind):
    """ChatML, which EuroLLM and Qwen have in their bases; units, which no base has."""
    generator = Generator(str(kind / "base"), max_new_tokens=1)
    turns = {"u1": [Turn("user", "x")]}
    if kind.name in ("eurollm", "qwen"):
        assert len(encode_turns(generator.tokenizer, turns, parse_job("mt.en-de"))) == 1
    else:
        with pytest.raises(SpireError, match=r"base: <\|im_end\|> is not one token"):
            encode_turns(generator.tokenizer, turns, parse_job("mt.en-de"))
        # What the tokenizer does not know is <unk>, and so may the text be.
        with pytest.raises(SpireError, match="is not one token"):
            encode_chatml_prompt(generator.tokenizer, [Turn("user", "<unk>")])
    turns = {"u1": [Turn("user", ASKED[0])]}
    with pytest.raises(SpireError, match="does not know unit 19 of u1; --model and --units"):
        encode_turns(generator.tokenizer, turns, parse_job("asr.en-en"))
    generator = Generator(str(kind / "model"), max_new_tokens=1)
    assert len(encode_turns(generator.tokenizer, turns, parse_job("asr.en-en"))) == 1
    turns = {"u2": [Turn("user", prompts.speech_instruction([3, 20], "en"))]}
    with pytest.raises(SpireError, match="does not know unit 20 of u2"):
        encode_turns(generator.tokenizer, turns, parse_job("asr.en-en"))
