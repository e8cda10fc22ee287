"""Servers of OpenAI's protocol: a stub on its bad days, and the real ``transformers serve``."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request

import pytest
import torch
from helpers_lm import GERMAN, SENTENCES
from helpers_server import StubServer

from espnet_spire.decode.answers import Answer
from espnet_spire.decode.generate import Generator
from espnet_spire.decode.search import Search
from espnet_spire.decode.server import ServerGenerator, ServerSettings
from espnet_spire.text.prompts import Turn, mt_instruction, mt_plain_prompt
from espnet_spire.utils.errors import SpireError

EOS = 2
PROMPTS = [[1, 300, 5], [1, 44], [1, 260, 261, 262, 263]]


def count(prompt):
    """Answers a prompt with its length (and 100) and its last id, then the end."""
    return [100 + len(prompt), prompt[-1], EOS], "stop"


EXPECTED = [Answer([103, 5], False), Answer([102, 44], False), Answer([105, 263], False)]


def generator(tokenizer, *servers, **settings):
    settings = {"timeout": 5.0, "retries": 2, **settings}
    urls = [server if isinstance(server, str) else server.url for server in servers]
    settings = ServerSettings(urls, "tower", **settings)
    return ServerGenerator(tokenizer, settings, max_new_tokens=7, eos_ids=[EOS], suppressed=[390])


def test_ids_go_in_and_come_out(lm_tokenizer, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    with StubServer(count) as server:
        assert generator(lm_tokenizer, server)(PROMPTS) == EXPECTED
    asked = sorted(server.requests, key=lambda request: request[1]["prompt"])
    assert asked[0] == (
        "/v1/completions",
        {
            **{"model": "tower", "prompt": [1, 44], "max_tokens": 7, "temperature": 0.0},
            **{"logit_bias": {"390": -100.0}, "stop_token_ids": [EOS]},
            **{"return_token_ids": True, "repetition_penalty": 1.0},
        },
    )
    assert set(server.keys) == {"Bearer secret"}


def test_an_answer_that_reached_the_limit_is_cut(lm_tokenizer):
    replies = {5: ([8, 9], "length"), 44: ([8, 9], "stop"), 263: ([8, EOS], "length")}
    with StubServer(lambda prompt: replies[prompt[-1]]) as server:
        found = generator(lm_tokenizer, server)(PROMPTS)
    # The last reached its end with the last token that it had.
    assert found == [Answer([8, 9], True), Answer([8, 9], False), Answer([8], False)]


def test_a_server_that_gives_text(lm_tokenizer):
    said = " der Koch\n schneidet  Brot"
    with StubServer(lambda prompt: (said, "length"), returns_ids=False) as server:
        lm = generator(lm_tokenizer, server)
        (answer,) = lm(PROMPTS[:1])
    assert lm.text(answer) == "der Koch schneidet Brot"
    assert answer.cut and answer.ids == lm_tokenizer(said, add_special_tokens=False).input_ids


CONVERSATION = [Turn("user", "Translate the following text from English to German.")]


def test_the_best_way_of_asking_that_a_server_takes(lm_tokenizer):
    def run(prompt, takes, **settings):
        with StubServer(lambda _: ("Brot", "stop"), takes=takes, returns_ids=False) as server:
            assert generator(lm_tokenizer, server, **settings)([prompt] * 3)[2].text == "Brot"
        return [(path.removeprefix("/v1/"), body) for path, body in server.requests]

    first, *others = run(CONVERSATION, ("chat", "text"))
    # Refused once, and then remembered.
    assert first[0] == "completions" and first[1]["prompt"][0] == lm_tokenizer.bos_token_id
    assert [path for path, _ in others] == ["chat/completions"] * 3
    assert others[0][1]["messages"] == [{"role": "user", "content": CONVERSATION[0].content}]
    assert "stop_token_ids" not in others[0][1]
    plain = run("English: bread\nGerman:", ("chat", "text"))
    assert [body["prompt"] for _, body in plain[1:]] == ["English: bread\nGerman:"] * 3
    chosen = run(CONVERSATION, ("chat", "ids"), api="chat")
    assert [path for path, _ in chosen] == ["chat/completions"] * 3


def test_what_has_ids_alone_is_not_asked_otherwise(lm_tokenizer):
    with StubServer(count, takes=("chat", "text")) as server:
        with pytest.raises(SpireError, match="asked by ids it answers 422: ids is not taken"):
            generator(lm_tokenizer, server)(PROMPTS)
        for api, prompt in (("chat", "a b"), ("text", CONVERSATION)):
            with pytest.raises(SpireError, match=f"--server_api {api}: "):
                generator(lm_tokenizer, server, api=api)([prompt])


def test_a_second_bos_is_noticed(lm_tokenizer):
    with StubServer(count, extra_tokens=1) as server:
        with pytest.raises(SpireError, match="a prompt of 3 tokens has 4 on the server; .* BOS"):
            generator(lm_tokenizer, server)(PROMPTS)


def test_what_a_server_has_no_time_for_is_asked_again(lm_tokenizer):
    with StubServer(count, troubles=[429, 500, "hang up"]) as server:
        started = time.monotonic()
        assert generator(lm_tokenizer, server, retries=3)(PROMPTS) == EXPECTED
        # Pauses of 0.5, 1 and 2 s, less a quarter at most.
        assert time.monotonic() - started > 2.6
    assert len(server.requests) == 6


def test_a_hanging_request_is_given_up_and_asked_again(lm_tokenizer):
    with StubServer(count, troubles=["hang"]) as server:
        assert generator(lm_tokenizer, server, timeout=0.5)(PROMPTS) == EXPECTED


@pytest.mark.parametrize(
    "trouble, message",
    [
        ([500] * 9, "answers 500: trouble 500; start it and the same command again"),
        (["hang"] * 9, r"no answer within 0.4 s \(--server_timeout\)"),
        (["hang up"] * 9, "no connection: "),
        ([401], "401: trouble 401; set OPENAI_API_KEY to a key that it takes"),
        ([402], "402: trouble 402$"),
    ],
)
def test_when_it_does_not_get_better(lm_tokenizer, trouble, message):
    with StubServer(count, troubles=trouble) as server:
        with pytest.raises(SpireError, match=message) as caught:
            generator(lm_tokenizer, server, timeout=0.4, retries=1)(PROMPTS)
    assert server.url in str(caught.value) and "\n" not in str(caught.value)


def test_a_server_that_is_not_there(lm_tokenizer):
    with pytest.raises(SpireError, match="no connection: .*; start it and the same command again"):
        generator(lm_tokenizer, f"http://127.0.0.1:{free_port()}/v1", retries=0)(PROMPTS)


def test_many_requests_are_in_flight_and_no_more(lm_tokenizer):
    prompts = [[1, number] for number in range(3, 203)]
    with StubServer(count, seconds=0.05) as one, StubServer(count, seconds=0.05) as two:
        found = generator(lm_tokenizer, one, two, concurrency=10)(prompts)
    assert [answer.ids for answer in found] == [[102, number] for number in range(3, 203)]
    assert 5 < one.most_in_flight <= 10 and 5 < two.most_in_flight <= 10
    assert len(one.requests) + len(two.requests) == 200 and len(one.requests) > 50


def test_what_a_lost_server_had_goes_to_the_others(lm_tokenizer, caplog):
    prompts = [[1, number] for number in range(3, 43)]
    with StubServer(count, troubles=[None] * 5 + [503] * 99) as one, StubServer(count) as two:
        found = generator(lm_tokenizer, one, two, concurrency=4, retries=0)(prompts)
    assert [answer.ids for answer in found] == [[102, number] for number in range(3, 43)]
    assert f"{one.url}: answers 503: trouble 503; 1 servers left" in caplog.text


def test_answers_come_while_others_are_waited_for(lm_tokenizer):
    with StubServer(count, troubles=[None, "hang"]) as server:
        stream = generator(lm_tokenizer, server, concurrency=2, timeout=60).stream(PROMPTS)
        came = {index for _ in range(2) for index, _ in next(stream)}
        assert len(came) == 2
        # And whoever has enough need not wait for the one that hangs.
        started = time.monotonic()
        stream.close()
        assert time.monotonic() - started < 5


def test_no_prompts(lm_tokenizer):
    assert generator(lm_tokenizer, "http://127.0.0.1:9/v1")([]) == []


@pytest.mark.parametrize(
    "url, settings, message",
    [
        ("localhost:8000", {}, "--server localhost:8000: give a URL"),
        ("http://x/v1", {"concurrency": 0}, "--server_concurrency 0: at least 1"),
        ("http://x/v1", {"api": "grpc"}, "--server_api grpc: choose from auto, ids, chat, text"),
    ],
)
def test_impossible_settings(lm_tokenizer, url, settings, message):
    with pytest.raises(SpireError, match=message):
        generator(lm_tokenizer, url, **settings)


# The real thing --------------------------------------------------------------------------------


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def translating_lm(lm_dir, tmp_path_factory):
    """The tiny LM after it has learned six sentences by heart, in both kinds of prompts."""
    out = tmp_path_factory.mktemp("translating")
    lm = Generator(str(lm_dir))
    documents = []
    for source, target in zip(SENTENCES, GERMAN, strict=True):
        answer = lm.tokenizer(f"{target}", add_special_tokens=False).input_ids
        for prompt, end in ((chat(source), "<|im_end|>"), (plain(source), "</s>")):
            ids = lm.encode(prompt)
            end = [lm.tokenizer.convert_tokens_to_ids(end)]
            documents.append((ids, [*answer, *end]))
    optimizer = torch.optim.Adam(lm.model.parameters(), lr=0.01)
    width = max(len(ids) + len(answer) for ids, answer in documents)
    inputs = torch.zeros(len(documents), width, dtype=torch.long)
    labels = torch.full_like(inputs, -100)
    for row, (ids, answer) in enumerate(documents):
        inputs[row, : len(ids) + len(answer)] = torch.tensor([*ids, *answer])
        labels[row, len(ids) : len(ids) + len(answer)] = torch.tensor(answer)
    torch.manual_seed(0)
    for _ in range(150):
        loss = lm.model(input_ids=inputs, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    # Its generation settings are the saved ones of the base: what ends an answer stands there.
    lm.model.save_pretrained(out)
    lm.tokenizer.save_pretrained(out)
    settings = json.loads((lm_dir / "generation_config.json").read_text())
    (out / "generation_config.json").write_text(
        json.dumps({**settings, "eos_token_id": lm.eos_ids})
    )
    return str(out)


def chat(source):
    return [Turn("user", mt_instruction("en", "de", source))]


def plain(source):
    return mt_plain_prompt("en", "de", source)


@pytest.fixture(scope="module")
def transformers_serve(translating_lm, tmp_path_factory):
    """A process of Hugging Face's server with the tiny model, on the CPU, offline."""
    port = free_port()
    log = tmp_path_factory.mktemp("serve") / "log"
    command = [sys.executable, "-m", "transformers.cli.transformers", "serve", translating_lm]
    command += ["--device", "cpu", "--port", str(port)]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    with open(log, "wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=stream, env=environment)
    try:
        for _ in range(300):
            assert process.poll() is None, log.read_text()[-3000:]
            try:
                urllib.request.urlopen(f"http://localhost:{port}/health", timeout=1).read()
                break
            except OSError:
                time.sleep(0.2)
        else:
            raise AssertionError(f"transformers serve does not start: {log.read_text()[-3000:]}")
        yield f"http://localhost:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.parametrize("prompt, api", [(chat, "chat"), (plain, "text")])
def test_transformers_serve_answers_as_this_process_does(
    translating_lm, transformers_serve, caplog, prompt, api
):
    caplog.set_level("INFO")
    prompts = [prompt(source) for source in SENTENCES]
    here = Generator(translating_lm, max_new_tokens=40)
    settings = ServerSettings([transformers_serve], translating_lm, concurrency=4)
    there = ServerGenerator.of_model(translating_lm, settings, max_new_tokens=40)
    expected, found = here(prompts), there(prompts)
    assert [here.text(answer) for answer in expected] == GERMAN
    # Token for token, and both know that they came to an end.
    assert [(answer.ids, answer.cut) for answer in found] == [
        (answer.ids, answer.cut) for answer in expected
    ]
    assert [there.text(answer) for answer in found] == GERMAN
    assert f"is asked by {api}" in caplog.text
    assert "chat template is another one" not in caplog.text


def test_transformers_serve_cuts_where_this_process_does(translating_lm, transformers_serve):
    here = Generator(translating_lm, max_new_tokens=4)
    settings = ServerSettings([transformers_serve], translating_lm)
    there = ServerGenerator.of_model(translating_lm, settings, max_new_tokens=4)
    expected, found = here([chat(SENTENCES[0])]), there([chat(SENTENCES[0])])
    assert expected[0].cut and found[0].cut
    assert there.text(found[0]) == here.text(expected[0])


def test_a_name_that_the_server_does_not_know(translating_lm, transformers_serve):
    settings = ServerSettings([transformers_serve], "no/such-model")
    there = ServerGenerator.of_model(translating_lm, settings, max_new_tokens=4)
    with pytest.raises(SpireError, match=r"Server is pinned to .*\(--server_model no/such-model\)"):
        there([chat("bread")])


def test_drawn_answers_are_drawn_by_prompt(lm_tokenizer):
    search = Search(do_sample=True, temperature=0.5, top_p=0.8, seed=3)
    with StubServer(count) as server:
        settings = ServerSettings([server.url], "tower")
        options = {"max_new_tokens": 7, "eos_ids": [EOS], "search": search}
        assert ServerGenerator(lm_tokenizer, settings, **options)(PROMPTS) == EXPECTED
    for _, body in server.requests:
        drawn = (body["temperature"], body["top_p"], body["seed"])
        assert drawn == (0.5, 0.8, search.seed_of(body["prompt"]))
    with pytest.raises(SpireError, match="no beam search; leave --num_beams"):
        ServerGenerator(lm_tokenizer, settings, max_new_tokens=7, search=Search(num_beams=2))
