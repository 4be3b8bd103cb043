"""tagging/chat_server: what is tried again and for how long, what is refused at once, and what is in no message."""

import logging
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from chat_completions import Asked, ChatCompletions, Reply, chat_completions, refusal
from daemon import wait_for

from bandscope_dagster.errors import CannotAnalyze, ServerRefused, ServerUnavailable, SettingsError
from bandscope_dagster.tagging import chat_server
from bandscope_dagster.tagging.chat_server import AnswerTooLong, ChatServer
from bandscope_dagster.tagging.options import ServerOptions
from bandscope_dagster.tagging.server_answers import pause_s_of

SECRET = "hunter2-do-not-print"
BODY = b'{"model": "Qwen/Qwen2.5-Omni-7B", "messages": [], "max_tokens": 256}'
LONG_S = 60.0


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_server, "FIRST_WAIT_S", 0.02)
    monkeypatch.setattr(chat_server, "LONGEST_WAIT_S", 0.1)
    monkeypatch.setattr(chat_server, "PATIENCE_S", 1.0)
    monkeypatch.setattr(chat_server, "BUSY_PATIENCE_S", 5.0)


@pytest.fixture
def served() -> Iterator[ChatCompletions]:
    with chat_completions() as server:
        yield server


def client(server: ChatCompletions, **options: Any) -> ChatServer:
    return ChatServer(ServerOptions(**({"url": server.url} | options)))


def asked(client: ChatServer) -> Future[str]:
    return client.start(client.complete(BODY))


def first_then(*replies: Reply) -> Callable[[Asked], Reply]:
    """These replies in turn, then a completion."""
    return lambda asked: replies[asked.number] if asked.number < len(replies) else Reply("done")


PASSING = {
    "too many requests": refusal(429, "slow down"),
    "an error of the server": refusal(500, "CUDA error"),
    "a proxy without a server": Reply(status=502, body=b"<html>Bad Gateway</html>"),
    "a server that starts": refusal(503, "loading"),
    "a broken connection": Reply("done", cut=True),
    "a page instead of JSON": Reply(body=b"<html>Welcome</html>"),
    "JSON that is no completion": Reply(body=b'{"choices": []}'),
    "a list": Reply(body=b"[1, 2]"),
    "JSON as deep as a well": Reply(body=b"[" * 60_000),
    "content that is no text": Reply(body=b'{"choices": [{"message": {"content": 5}}]}'),
}


@pytest.mark.parametrize("fault", PASSING)
def test_what_may_pass_is_tried_again(fault: str, served: ChatCompletions) -> None:
    served.answer = first_then(PASSING[fault], PASSING[fault])
    assert asked(client(served)).result(LONG_S) == "done"
    assert len(served.asked) == 3


@pytest.mark.parametrize("fault", PASSING)
def test_what_does_not_pass_ends_with_one_sentence_that_names_the_server(
    fault: str, served: ChatCompletions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_server, "BUSY_PATIENCE_S", 0.3)
    monkeypatch.setattr(chat_server, "PATIENCE_S", 0.3)
    served.answer = lambda asked: PASSING[fault]
    with pytest.raises(ServerUnavailable) as failed:
        asked(client(served)).result(LONG_S)
    assert served.url in str(failed.value) and "BANDSCOPE_TAGGER_URL" in str(failed.value)
    assert "bandscope doctor" in str(failed.value)
    assert not isinstance(failed.value, CannotAnalyze), "a retry may succeed"
    assert len(served.asked) > 1


def test_a_pause_that_the_server_asks_for_is_kept(served: ChatCompletions) -> None:
    served.answer = first_then(refusal(429, "slow down", retry_after="1"))
    began = time.monotonic()
    assert asked(client(served)).result(LONG_S) == "done"
    assert time.monotonic() - began >= 1.0


def test_a_pause_longer_than_the_patience_is_no_pause(served: ChatCompletions) -> None:
    served.answer = lambda asked: refusal(429, "come back tomorrow", retry_after="86400")
    with pytest.raises(ServerUnavailable, match="come back tomorrow"):
        asked(client(served)).result(LONG_S)
    assert len(served.asked) == 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("7", 7), ("1.5", 1.5), ("-3", 0), ("soon", 0), ("", 0), ("Fri, 01 Jan 1999 00:00:00 GMT", 0)],
)
def test_retry_after_is_a_number_or_a_date_or_nothing(text: str, seconds: float) -> None:
    assert pause_s_of(text) == seconds


REFUSED = {
    401: "BANDSCOPE_TAGGER_KEY",
    403: "BANDSCOPE_TAGGER_KEY",
    404: "BANDSCOPE_TAGGER_MODEL",
    400: "the same request will be refused again",
    413: "BANDSCOPE_TAG_WINDOW_S",
    302: "BANDSCOPE_TAGGER_URL",
}


@pytest.mark.parametrize("status", REFUSED)
def test_a_refusal_is_an_error_at_once_with_the_servers_words_and_the_remedy(
    status: int, served: ChatCompletions
) -> None:
    served.answer = lambda asked: refusal(status, "the audio is too loud")
    with pytest.raises(ServerRefused, match=rf"status {status}: 'the audio is too loud'.*{REFUSED[status]}"):
        asked(client(served)).result(LONG_S)
    assert len(served.asked) == 1


def test_a_server_that_is_down_is_waited_for_once_and_not_by_every_request(served: ChatCompletions) -> None:
    here = client(served)
    served.stop()
    failing_since: float | None = None
    while failing_since is None or time.monotonic() < failing_since + chat_server.PATIENCE_S:
        with pytest.raises(
            ServerUnavailable, match="cannot be reached"
        ):  # perhaps before its patience is over
            asked(here).result(LONG_S)
        failing_since = failing_since or time.monotonic()
    for _ in range(20):
        with pytest.raises(ServerUnavailable, match="1 try"):
            asked(here).result(LONG_S)
    served.start()
    assert asked(here).result(LONG_S) == "[]"


def test_a_server_that_comes_back_in_time_answers_everything(served: ChatCompletions) -> None:
    here = client(served)
    back = threading.Event()
    served.answer = lambda asked: Reply("done", until=back.is_set)
    futures = [asked(here) for _ in range(10)]
    wait_for("all are asked", lambda: served.most_in_flight == 10, every_s=0.01)
    served.stop()
    back.set()
    threading.Timer(0.4, served.start).start()
    assert [future.result(LONG_S) for future in futures] == ["done"] * 10


def test_questions_that_a_stopping_server_keeps_without_an_answer_are_asked_again(
    served: ChatCompletions,
) -> None:
    here = client(served, timeout_s=1.0)
    served.answer = lambda asked: Reply("late", delay_s=LONG_S)
    futures = [asked(here) for _ in range(5)]
    wait_for("all are asked", lambda: served.most_in_flight == 5, every_s=0.01)
    served.stop(silently=True)
    served.answer = lambda asked: Reply("done")
    served.start()
    assert [future.result(LONG_S / 2) for future in futures] == ["done"] * 5
    assert len(served.asked) == 10


def test_an_answer_that_takes_too_long_is_given_up(
    served: ChatCompletions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chat_server, "PATIENCE_S", 0.3)
    served.answer = lambda asked: Reply(delay_s=20)
    here = client(served, timeout_s=0.2)
    for requests in (2, 3):
        with pytest.raises(ServerUnavailable, match=r"has not answered within 0\.2 s"):
            asked(here).result(LONG_S)
        assert len(served.asked) == requests, "only the first question is repeated: then the server hangs"


def test_a_late_answer_is_asked_for_again_while_the_server_answers_others(served: ChatCompletions) -> None:
    served.answer = lambda asked: Reply("done", delay_s=20.0 if asked.number == 0 else 0.0)
    here = client(served, timeout_s=1.5)
    late = asked(here)
    wait_for("it is asked", lambda: served.asked, every_s=0.01)
    assert asked(here).result(LONG_S) == "done"
    assert late.result(LONG_S) == "done" and len(served.asked) == 3


def test_a_server_that_was_down_before_gets_the_whole_patience_that_is_asked_for(
    served: ChatCompletions, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(chat_server, "PATIENCE_S", 0.1)
    here = client(served)
    served.stop()
    with pytest.raises(ServerUnavailable):
        asked(here).result(LONG_S)
    time.sleep(0.2)
    threading.Timer(0.5, served.start).start()
    assert here.result(here.complete(BODY, LONG_S)) == "[]"
    assert "Waiting for it, up to 60 s." in caplog.text


def test_a_wait_for_a_server_that_accepts_and_never_answers_ends_as_soon_as_it_shall(
    served: ChatCompletions,
) -> None:
    served.answer = lambda asked: Reply(delay_s=30)
    here = client(served)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        here.result(here.complete(BODY, LONG_S), lambda: bool(served.asked))
    assert time.monotonic() - began < 20


def test_a_gateway_without_its_server_passes_once_the_server_has_answered(served: ChatCompletions) -> None:
    gone = refusal(404, "no healthy upstream")
    served.answer = lambda asked: gone if asked.number == 1 else Reply("done")
    here = client(served)
    assert [asked(here).result(LONG_S) for _ in range(2)] == ["done"] * 2
    assert len(served.asked) == 3


def test_half_a_character_in_an_answer_is_replaced(served: ChatCompletions) -> None:
    served.answer = lambda asked: Reply("a\ud83cb")
    assert asked(client(served)).result(LONG_S) == "a\N{REPLACEMENT CHARACTER}b"


def test_a_long_page_with_an_error_is_an_error_like_others(served: ChatCompletions) -> None:
    served.answer = first_then(Reply(status=502, body=b"<html>" * 20_000))
    assert asked(client(served)).result(LONG_S) == "done"


def test_threads_that_ask_at_once_get_one_client(served: ChatCompletions) -> None:
    options = ServerOptions(served.url, requests=3)
    with ThreadPoolExecutor(8) as threads:
        clients = list(threads.map(lambda _: chat_server.chat_server(options), range(8)))
    assert len(set(map(id, clients))) == 1


def test_an_answer_without_an_end_is_not_read_to_its_end(served: ChatCompletions) -> None:
    served.answer = lambda asked: Reply(body=b'"piano", ' * 1000, endless=True)
    with pytest.raises(AnswerTooLong, match="65,536 bytes"):
        asked(client(served)).result(LONG_S)
    assert len(served.asked) == 1


def test_all_requests_share_one_thread(served: ChatCompletions) -> None:
    here = client(served)
    asked(here).result(LONG_S)
    before = threading.active_count()
    counted = threading.Event()
    served.answer = lambda asked: Reply(until=counted.is_set)
    futures = [asked(here) for _ in range(64)]
    wait_for("all are asked", lambda: served.most_in_flight == 64, every_s=0.01)
    now = threading.active_count()
    counted.set()
    assert now == before
    assert [future.result(LONG_S) for future in futures] == ["[]"] * 64


def test_a_request_that_is_given_up_breaks_its_connection(served: ChatCompletions) -> None:
    served.answer = lambda asked: Reply(delay_s=30)
    future = asked(client(served))
    wait_for("it is asked", lambda: served.asked, every_s=0.01)
    assert future.cancel()


def test_the_key_is_sent_and_is_in_no_message_even_if_the_server_repeats_it(served: ChatCompletions) -> None:
    served.key = SECRET
    served.answer = lambda asked: refusal(400, f"not for {SECRET}")
    options = ServerOptions(served.url, key=SECRET)
    with pytest.raises(ServerRefused, match="not for …") as refused:
        asked(ChatServer(options)).result(LONG_S)
    assert SECRET not in f"{refused.value!r} {options!r}"
    assert served.asked[0].headers["authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize("end", ["\n", "\r\n", " "])
def test_the_end_of_a_file_with_a_key_does_not_belong_to_the_key(end: str, served: ChatCompletions) -> None:
    served.key = SECRET
    assert asked(client(served, key=SECRET + end)).result(LONG_S) == "[]"


@pytest.mark.parametrize("key", [f"{SECRET}\n2", f"{SECRET}\x00", f"{SECRET}é"])
def test_a_key_that_cannot_be_sent_is_refused_by_the_name_of_its_setting(key: str) -> None:
    with pytest.raises(SettingsError, match="BANDSCOPE_TAGGER_KEY") as refused:
        ServerOptions("http://host/v1", key=key)
    assert SECRET not in str(refused.value)


def test_an_error_of_the_client_is_no_passing_one_and_has_no_key(served: ChatCompletions) -> None:
    options = ServerOptions(served.url, key=SECRET)
    object.__setattr__(options, "key", f"{SECRET}\n")  # past the check
    with pytest.raises(ServerRefused, match=r"BANDSCOPE_TAGGER_KEY.*Illegal header value") as refused:
        asked(ChatServer(options)).result(LONG_S)
    assert SECRET not in f"{refused.value!r}" and not served.asked


@pytest.mark.parametrize(
    ("user", "query", "secret"),
    [
        (f"{SECRET}@", "", SECRET),
        ("mia:p%40ss-word@", "", "p@ss-word"),
        ("mia:p%40ss-word@", "", "p%40ss-word"),
        ("", f"?sig={SECRET}", SECRET),
    ],
)
def test_a_secret_anywhere_in_the_url_is_in_no_message_and_no_log(
    user: str, query: str, secret: str, served: ChatCompletions, caplog: pytest.LogCaptureFixture
) -> None:
    served.answer = lambda asked: refusal(400, f"not for {secret}")
    options = ServerOptions(served.url.replace("127.0.0.1", f"{user}127.0.0.1") + query)
    with caplog.at_level(logging.DEBUG):
        assert options.masked(f"not for {secret}") == "not for …"
        with pytest.raises((ServerRefused, ServerUnavailable)) as failed:
            asked(ChatServer(options)).result(LONG_S)
    assert secret not in f"{failed.value} {caplog.text}"


def test_user_and_password_of_the_url_are_sent_and_in_no_message(served: ChatCompletions) -> None:
    options = ServerOptions(served.url.replace("127.0.0.1", f"mia:{SECRET}@127.0.0.1") + "?api-version=1")
    served.answer = lambda asked: refusal(400, f"{SECRET} is no password")
    with pytest.raises(ServerRefused) as refused:
        asked(ChatServer(options)).result(LONG_S)
    assert SECRET not in f"{refused.value} {options!r} {options.shown}"
    assert options.shown == served.url


@pytest.mark.parametrize("url", ["", "host:8000/v1", "ftp://host/v1", "http://", "http://host:port/v1"])
def test_an_address_that_is_none_is_refused_by_the_name_of_its_setting(url: str) -> None:
    with pytest.raises(SettingsError, match="BANDSCOPE_TAGGER_URL must be the address"):
        ServerOptions(url)


def test_a_user_and_a_key_cannot_both_be_sent() -> None:
    with pytest.raises(SettingsError, match="BANDSCOPE_TAGGER_KEY"):
        ServerOptions("http://mia:secret@host/v1", key="key")


@pytest.mark.parametrize("proxy", ["http://127.0.0.1:9", "socks5://127.0.0.1:9"])
def test_a_server_on_loopback_is_asked_without_the_proxy_of_the_environment(
    proxy: str, served: ChatCompletions, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert asked(client(served)).result(LONG_S) == "[]"


def test_another_server_is_asked_by_the_proxy_of_the_environment(
    served: ChatCompletions, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, served.url.removesuffix("/v1"))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ServerRefused, match=r"the server|Not Found"):
        asked(ChatServer(ServerOptions("http://tagger.example/v1"))).result(LONG_S)


@pytest.fixture
def company(tmp_path: Path) -> tuple[Path, ssl.SSLContext]:
    """A certificate that no system knows, and the context of a server with it."""
    certificate, key = tmp_path / "company.pem", tmp_path / "key.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1"
    extension = "-addext subjectAltName=IP:127.0.0.1"
    paths = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *extension.split(), *paths], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return certificate, context


def test_the_certificate_of_a_company_is_trusted_if_the_environment_names_it(
    company: tuple[Path, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, context = company
    with chat_completions(secure=context) as served:
        monkeypatch.delenv("SSL_CERT_FILE", raising=False)
        with pytest.raises(ServerRefused, match="set SSL_CERT_FILE"):
            asked(client(served)).result(LONG_S)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        assert asked(client(served)).result(LONG_S) == "[]"
