"""A server that speaks as much of OpenAI's protocol as the tests need, over real HTTP.

It can do what servers do on bad days: be busy, fail, hang, refuse a way of asking, hang up.
"""

import contextlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class StubServer:
    """Answers what ``reply(prompt)`` gives: ``(ids or text, finish_reason)``.

    Args:
        reply: called with ids (``/v1/completions`` with ids), text, or messages.
        takes: ways of asking: of ids, text, chat.
        troubles: what happens to the first requests, one each: an HTTP status, ``"hang"`` (as long
            as the server lives) or ``"hang up"``.
        returns_ids: whether answers to ids have ``token_ids``, as vLLM's have.
        extra_tokens: that the server adds to each prompt, such as a BOS.
        seconds: that an answer takes.
    """

    def __init__(
        self,
        reply,
        *,
        takes=("ids", "text", "chat"),
        troubles=(),
        returns_ids=True,
        extra_tokens=0,
        seconds=0.0,
    ):
        self.reply, self.takes, self.returns_ids = reply, takes, returns_ids
        self.extra_tokens, self.seconds = extra_tokens, seconds
        self.troubles = list(troubles)
        self.requests, self.keys = [], []
        self.in_flight = self.most_in_flight = 0
        self.lock = threading.Lock()
        self.ended = threading.Event()

    def __enter__(self):
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.counted():
                    outer.handle(self, body)

            def log_message(self, *_):
                pass

        class Server(ThreadingHTTPServer):
            # Hundreds of clients may come at once.
            request_queue_size = 512
            daemon_threads = True

        self.server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.server.shutdown()
        self.server.server_close()

    @contextlib.contextmanager
    def counted(self):
        with self.lock:
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            yield
        finally:
            with self.lock:
                self.in_flight -= 1

    def handle(self, http, body):
        with self.lock:
            self.requests.append((http.path, body))
            self.keys.append(http.headers.get("Authorization"))
            trouble = self.troubles.pop(0) if self.troubles else None
        if trouble == "hang":
            self.ended.wait()
        if trouble in ("hang", "hang up"):
            http.close_connection = True
            return
        if trouble is not None:
            self.send(http, trouble, {"error": {"message": f"trouble {trouble}"}})
            return
        chat = http.path == "/v1/chat/completions"
        prompt = body["messages"] if chat else body["prompt"]
        api = "chat" if chat else "text" if isinstance(prompt, str) else "ids"
        if api not in self.takes:
            self.send(http, 422, {"detail": f"{api} is not taken"})
            return
        time.sleep(self.seconds)
        answer, reason = self.reply(prompt)
        choice = {"index": 0, "finish_reason": reason}
        if chat:
            choice["message"] = {"role": "assistant", "content": answer}
        elif api == "ids" and self.returns_ids:
            choice.update(text="of no interest", token_ids=answer)
        else:
            choice["text"] = answer
        used = len(prompt) + self.extra_tokens if api == "ids" else 0
        usage = {"prompt_tokens": used, "completion_tokens": 1, "total_tokens": used + 1}
        kind = "chat.completion" if chat else "text_completion"
        about = {"id": "x", "object": kind, "created": 0, "model": body["model"]}
        self.send(http, 200, {**about, "choices": [choice], "usage": usage})

    @staticmethod
    def send(http, status, value):
        said = json.dumps(value).encode()
        http.send_response(status)
        http.send_header("Content-Type", "application/json")
        http.send_header("Content-Length", str(len(said)))
        http.end_headers()
        http.wfile.write(said)
