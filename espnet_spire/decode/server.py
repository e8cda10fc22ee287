"""Generation by servers that speak OpenAI's protocol: vLLM's, ``transformers serve`` and others.

A server is asked in the most exact way that it takes:

* ``ids``: token ids to ``/v1/completions`` (vLLM). The server adds and parses nothing, and gives
  ids back (``return_token_ids``) where it can.
* ``chat``: messages to ``/v1/chat/completions``, for conversations. The chat template is the
  server's: where its prompt has another number of tokens than training's, the log says so.
* ``text``: to ``/v1/completions``, for plain prompts. The server's tokenizer adds the BOS.

Where a server gives no ids, ids are made from its text, and an answer whose end came with the very
last token that it had counts as cut (``transformers serve`` says ``length`` of it).

Greedy unless answers are to be drawn, and one request a prompt: batching is the server's work, so
many requests are in flight at once.
"""

import argparse
import asyncio
import logging
import os
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Set, Tuple

from espnet_spire.decode.answers import (
    Answer,
    Answerer,
    Prompt,
    is_conversation,
    load_tokenizer,
    positions_of,
)
from espnet_spire.decode.search import GREEDY, Search
from espnet_spire.model.generation import end_tokens, load_settings, padding_rows
from espnet_spire.utils.errors import SpireError

APIS = ("auto", "ids", "chat", "text")
# "No such thing here", in the words of several servers; it may mean the way of asking.
_REFUSALS = (400, 404, 405, 415, 422)
# "Not now": the client has tried again already.
_BUSY = (408, 409, 429)
# What vLLM knows beyond OpenAI's protocol.
_VLLM = {"return_token_ids": True, "repetition_penalty": 1.0}


class ServerSettings(NamedTuple):
    """``urls``: of servers that have the same model, up to ``/v1``; ``model``: its name there.

    ``concurrency``: requests in flight at each server. ``timeout``: seconds for an answer;
    ``retries``: of a request that timed out, or that a server had no time for (429, 5xx), each
    after twice as long (0.5 to 8 s, or what the server says). ``api``: one of :data:`APIS`.
    """

    urls: Sequence[str]
    model: str
    concurrency: int = 64
    timeout: float = 600.0
    retries: int = 5
    api: str = "auto"


def server_settings(args: argparse.Namespace) -> ServerSettings:
    """Of :func:`espnet_spire.utils.cli.add_server_options` and ``--model``."""
    return ServerSettings(
        args.server,
        args.server_model or args.model,
        concurrency=args.server_concurrency,
        timeout=args.server_timeout,
        retries=args.server_retries,
        api=args.server_api,
    )


class ServerGenerator(Answerer):
    """A causal LM behind one server or several; ``OPENAI_API_KEY`` is sent where it is set.

    Args:
        tokenizer: the model's.
        settings: which servers, and how they are asked.
        max_new_tokens: limit of an answer.
        eos_ids: tokens that end an answer, see :func:`espnet_spire.model.generation.end_tokens`.
        suppressed: rows of the output matrix that are no tokens.
        positions: for how many tokens the model has positions, if that is known.
        search: how answers are looked for; not beam search.

    Raises:
        SpireError: a setting that is impossible, or the client is not installed.
    """

    def __init__(
        self,
        tokenizer,
        settings: ServerSettings,
        *,
        max_new_tokens: int,
        eos_ids: Sequence[int] = (),
        suppressed: Sequence[int] = (),
        positions: Optional[int] = None,
        search: Search = GREEDY,
    ) -> None:
        try:
            import openai  # noqa: F401
        except ImportError:
            raise SpireError("--server needs the package openai: pip install openai") from None
        super().__init__(tokenizer, max_new_tokens, positions)
        if search.check().num_beams > 1:
            raise SpireError("--server: OpenAI's protocol has no beam search; leave --num_beams")
        self.search = search
        for url in settings.urls:
            if not url.startswith(("http://", "https://")):
                raise SpireError(f"--server {url}: give a URL, such as http://localhost:8000/v1")
        if settings.concurrency < 1:
            raise SpireError(f"--server_concurrency {settings.concurrency}: at least 1 is needed")
        if settings.api not in APIS:
            raise SpireError(f"--server_api {settings.api}: choose from {', '.join(APIS)}")
        self.settings = settings
        self.eos_ids = sorted(set(eos_ids))
        # OpenAI's own way to forbid tokens.
        self.logit_bias = {str(row): -100.0 for row in suppressed}
        # By URL; found out at the first prompt.
        self._apis: Dict[str, str] = {}
        self._warned: Set[str] = set()

    @classmethod
    def of_model(
        cls, name: str, settings: ServerSettings, *, max_new_tokens: int, search: Search = GREEDY
    ) -> "ServerGenerator":
        """For a model whose tokenizer and configuration are here: directory or hub name.

        Raises:
            SpireError: they are not.
        """
        tokenizer = load_tokenizer(name)
        config, generation = load_settings(name)
        return cls(
            tokenizer,
            settings,
            max_new_tokens=max_new_tokens,
            eos_ids=end_tokens(tokenizer, generation),
            suppressed=padding_rows(tokenizer, config),
            positions=positions_of(config),
            search=search,
        )

    def stream(self, prompts: Sequence[Prompt]) -> Iterator[List[Tuple[int, Answer]]]:
        """Yield answers as they come; those that came together are one list.

        A server that no longer answers is left out, and its prompts go to the others.

        Raises:
            SpireError: a server refuses a request, or none of them answers.
        """
        loop = asyncio.new_event_loop()
        servers = [_Server(url, self) for url in self.settings.urls]
        try:
            yield from self._stream(loop, servers, prompts)
        finally:
            loop.run_until_complete(_close(loop, servers))
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.close()

    def _stream(self, loop, servers: List["_Server"], prompts: Sequence[Prompt]):
        waiting = list(range(len(prompts)))[::-1]
        asked: Dict[asyncio.Task, Tuple[int, "_Server"]] = {}
        while waiting or asked:
            while waiting and (server := self._least_busy(servers)) is not None:
                index = waiting.pop()
                server.in_flight += 1
                task = loop.create_task(server.answer(prompts[index]))
                asked[task] = index, server
            done, _ = loop.run_until_complete(
                asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
            )
            answers, failure = [], None
            for task in done:
                index, server = asked.pop(task)
                server.in_flight -= 1
                try:
                    answers.append((index, task.result()))
                except _Gone as error:
                    waiting.append(index)
                    if server in servers:
                        servers.remove(server)
                        logging.warning("%s: %s; %d servers left", server.url, error, len(servers))
                        loop.run_until_complete(server.client.close())
                    if not servers:
                        failure = SpireError(
                            f"--server {server.url}: {error}; start it and the same command again:"
                            " what was answered is kept"
                        )
                except SpireError as error:
                    failure = error
            if answers:
                yield answers
            if failure is not None:
                raise failure

    def _least_busy(self, servers: List["_Server"]) -> Optional["_Server"]:
        server = min(servers, key=lambda server: server.in_flight)
        # Until it is known how it is asked, one request will do.
        known = server.url in self._apis
        return server if server.in_flight < (self.settings.concurrency if known else 1) else None

    def apis_for(self, url: str, prompt: Prompt) -> List[str]:
        """In which ways a server may be asked, the best first."""
        if url in self._apis:
            return [self._apis[url]]
        if self.settings.api != "auto":
            return [self.settings.api]
        if isinstance(prompt, str):
            return ["ids", "text"]
        return ["ids", "chat"] if is_conversation(prompt) else ["ids"]

    def found_api(self, url: str, api: str, said: Dict[str, int]) -> None:
        """Note the way that a server was asked in, and compare the prompt's length."""
        if url not in self._apis:
            self._apis[url] = api
            logging.info("%s: %s is asked by %s", url, self.settings.model, api)
        if said["server"] in (0, said["ours"]):  # 0: it does not say
            return
        difference = f"a prompt of {said['ours']} tokens has {said['server']} on the server"
        if api != "chat":
            raise SpireError(
                f"--server {url}: {difference}; its tokenizer is not that of --model, or it adds"
                " a BOS of its own"
            )
        if url not in self._warned:
            self._warned.add(url)
            logging.warning("%s: %s: its chat template is another one", url, difference)


class _Gone(Exception):
    """A server does not answer."""


class _Server:
    """One of the servers, within one call of ``stream``."""

    def __init__(self, url: str, owner: ServerGenerator) -> None:
        import openai

        settings = owner.settings
        self.url, self.owner, self.in_flight = url, owner, 0
        self.client = openai.AsyncOpenAI(
            base_url=url.rstrip("/"),
            # The client insists on one; servers without keys do not look at it.
            api_key=os.environ.get("OPENAI_API_KEY") or "none",
            timeout=settings.timeout,
            max_retries=settings.retries,
        )

    async def answer(self, prompt: Prompt) -> Answer:
        import openai

        refusals = []
        for api in self.owner.apis_for(self.url, prompt):
            try:
                return await self._ask(api, prompt)
            except openai.APITimeoutError:
                raise _Gone(
                    f"no answer within {self.owner.settings.timeout:g} s (--server_timeout)"
                ) from None
            except openai.APIConnectionError as error:
                raise _Gone(f"no connection: {error.__cause__ or error}") from None
            except openai.APIStatusError as error:
                said = f"{error.status_code}: {_message(error)}"
                if error.status_code in _BUSY or error.status_code >= 500:
                    raise _Gone(f"answers {said}") from None
                if error.status_code in (401, 403):
                    raise SpireError(
                        f"--server {self.url}: {said}; set OPENAI_API_KEY to a key that it takes"
                    ) from None
                if error.status_code not in _REFUSALS:
                    raise SpireError(f"--server {self.url}: {said}") from None
                refusals.append(f"asked by {api} it answers {said}")
        raise SpireError(
            f"--server {self.url}: {'; '.join(refusals)} (--server_model"
            f" {self.owner.settings.model})"
        )

    async def _ask(self, api: str, prompt: Prompt) -> Answer:
        owner = self.owner
        options: Dict[str, Any] = {
            "model": owner.settings.model,
            "max_tokens": owner.max_new_tokens,
            "temperature": 0.0,
            **({"logit_bias": owner.logit_bias} if owner.logit_bias else {}),
        }
        ids = owner.encode(prompt)
        if owner.search.do_sample:
            options["temperature"] = owner.search.temperature
            options["top_p"] = owner.search.top_p
            options["seed"] = owner.search.seed_of(ids)
        if api == "chat":
            if not is_conversation(prompt):
                raise SpireError("--server_api chat: a plain prompt is no conversation; use text")
            messages = [{"role": turn.role, "content": turn.content} for turn in prompt]
            said = await self.client.chat.completions.create(messages=messages, **options)
        elif api == "text":
            if not isinstance(prompt, str):
                raise SpireError("--server_api text: is for plain prompts; use chat")
            said = await self.client.completions.create(prompt=prompt, **options)
        else:
            extra = {**_VLLM, "stop_token_ids": owner.eos_ids}
            said = await self.client.completions.create(prompt=ids, extra_body=extra, **options)
        if not said.choices:
            raise SpireError(f"--server {self.url}: an answer without choices: {said}")
        used = said.usage.prompt_tokens if said.usage else 0
        owner.found_api(self.url, api, {"server": used, "ours": len(ids)})
        choice = said.choices[0]
        text = choice.message.content if api == "chat" else choice.text
        return self._read(choice, text or "")

    def _read(self, choice, text: str) -> Answer:
        owner = self.owner
        cut = choice.finish_reason == "length"
        # An extension; the client keeps what it does not know.
        ids = getattr(choice, "token_ids", None)
        if ids is None:
            ids = owner.tokenizer(text, add_special_tokens=False).input_ids
            return Answer(list(ids), cut, text)
        for position, token in enumerate(ids):
            if token in owner.eos_ids:
                return Answer(list(ids[:position]), False)
        return Answer(list(ids), cut)


async def _close(loop, servers: List[_Server]) -> None:
    tasks = [task for task in asyncio.all_tasks(loop) if task is not asyncio.current_task()]
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.gather(*(server.client.close() for server in servers))


def _message(error) -> str:
    """What a server says of an error, on one line."""
    body = error.body if isinstance(error.body, dict) else {}
    found = body.get("message") or body.get("detail") or error.message
    return " ".join(str(found).split())[:300]
