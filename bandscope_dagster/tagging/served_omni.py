"""Qwen2.5-Omni and Qwen3-Omni on a server, such as vLLM, as taggers: the same questions, other hardware.

Questions, parsing and the second question after an unreadable answer are those of ``qwen_omni.py``, by
``Conversation``. The server batches what it is asked at the same time, so every window is a conversation of its own.
"""

import base64
import io
import json
import logging
import wave
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bandscope_dagster.errors import ServerRefused, ServerUnavailable, SettingsError
from bandscope_dagster.models.identity import ModelIdentity
from bandscope_dagster.tagging.answers.parse import PARSER_VERSION
from bandscope_dagster.tagging.chat_server import AnswerTooLong, ChatServer, chat_server
from bandscope_dagster.tagging.conversation import Conversation
from bandscope_dagster.tagging.options import ServerOptions, TaggingOptions
from bandscope_dagster.tagging.prompts import Dialogue, Question, load_dialogue
from bandscope_dagster.tagging.protocol import ON_A_SERVER, Heard, WindowPlan
from bandscope_dagster.tagging.qwen_omni import SAMPLE_RATE, window_plan
from bandscope_dagster.tagging.server_answers import whole_characters

logger = logging.getLogger(__name__)

START_PATIENCE_S: Final = 600.0  # for the first requests of a run: time for a server to load its model
LOOK_PATIENCE_S: Final = 10.0  # for the same requests, if a person waits for the answer
FACT: Final = 100  # characters of a statement of the server that are kept
SHOWN_MODELS: Final = 10  # in a message
NO_SCHEMAS: Final = (400, 422, 501)  # with which servers refuse a part of a request that they do not have
UNKNOWN: Final = "unknown"
NOT_HASHED: Final = "on a server; Bandscope has not hashed them"


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """A server's own statements."""

    model: str  # the name under which it serves the model
    software: str  # "vllm 0.32.0", or "unknown"


class TaggerUnavailable(ServerUnavailable):
    """The server does not answer. Songs whose results are stored need it no more: ``identity`` is that of the tagger,
    as far as it decides whether a result is current."""

    def __init__(self, message: str, identity: ModelIdentity) -> None:
        super().__init__(message)
        self.identity = identity


def server_facts(
    options: ServerOptions,
    model: str,
    patience_s: float | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> ServerFacts:
    """Ask the server for its models, among which ``model`` must be, and its version.

    ``patience_s`` is the time for a server that does not answer; its default is that of a person.

    Raises:
        KeyboardInterrupt: ``stopped`` became true.
        SettingsError: it does not serve the model, or refuses to answer.
        ServerUnavailable: it does not answer.
    """
    server = chat_server(options)
    try:
        patience_s = LOOK_PATIENCE_S if patience_s is None else patience_s
        return server.result(_facts(server, model, patience_s), stopped)
    except ServerRefused as error:
        raise SettingsError(str(error)) from error


async def _facts(server: ChatServer, model: str, patience_s: float) -> ServerFacts:
    def models(content: bytes) -> dict[str, str]:
        return {str(each["id"]): _fact(each.get("owned_by") or "") for each in json.loads(content)["data"]}

    served = await server.get("/models", models, patience_s)
    if model not in served:
        others = ", ".join(server.options.masked(_fact(name)) for name in list(served)[:SHOWN_MODELS])
        raise SettingsError(
            f"The server of the tagger, {server.options.shown}, does not serve {model!r}, only "
            f"{others or 'nothing'}: set BANDSCOPE_TAGGER_MODEL to the name of the model there"
        )
    try:
        version = await server.get("//version", lambda content: _fact(json.loads(content)["version"]), 0.0)
    except Exception:  # vLLM has this document; the interface of OpenAI does not
        version = ""
    return ServerFacts(model, " ".join(part for part in (served[model], version) if part) or UNKNOWN)


def _fact(stated: object) -> str:
    """A statement of the server as text that every table takes."""
    return whole_characters(str(stated)[:FACT])


def load_served_omni(
    name: str,
    model: str,
    server: ServerOptions,
    options: TaggingOptions,
    stopped: Callable[[], bool] = lambda: False,
) -> "ServedOmni":
    """The model ``name`` of the inventory on a server that serves it as ``model``.

    Asks the server for its facts, and once in this process one short question: if it refuses a JSON Schema, all
    questions go without one. The question is asked again if the facts change, or after the server refused a window.

    Raises:
        KeyboardInterrupt: ``stopped`` became true.
        SettingsError: the options do not fit the model, or the server refuses the questions.
        TaggerUnavailable: the server does not answer.
    """
    plan = window_plan(name, options)  # checks the options before the server is asked
    if options.batch is not None:
        raise SettingsError(
            f"BANDSCOPE_TAG_BATCH={options.batch} has no meaning for a tagger on a server: unset it, and use "
            "BANDSCOPE_TAGGER_REQUESTS"
        )
    dialogue = load_dialogue(options.mode or "list")
    client = chat_server(server)
    try:
        facts = server_facts(server, model, START_PATIENCE_S, stopped)
        probe = (facts, dialogue.sha256, plan.length)
        structured = client.takes_schemas.get(probe)
        if structured is None:
            structured = _takes_schemas(client, model, dialogue, plan.length, stopped)
            client.takes_schemas[probe] = structured
    except ServerUnavailable as error:
        unasked = ServerFacts(model, UNKNOWN)
        raise TaggerUnavailable(
            str(error), _identity(name, plan, dialogue, unasked, server, structured=True)
        ) from error
    return ServedOmni(name, client, facts, dialogue, options, structured=structured)


def _takes_schemas(
    client: ChatServer, model: str, dialogue: Dialogue, length: int, stopped: Callable[[], bool]
) -> bool:
    """Ask the last question about a silent window, with its schema; False if only the schema is refused.

    The window has the full ``length`` in samples, because a server may refuse audio that is too long for its model.
    """
    silence = _wav(np.zeros(length, np.float32))
    conversation = Conversation(dialogue)
    (question,) = dialogue.questions[-1:]

    def probe(structured: bool) -> None:
        least = replace(question, max_new_tokens=1)
        body = _body(model, conversation, least, silence, structured=structured)
        client.result(client.complete(body, START_PATIENCE_S), stopped)

    try:
        probe(structured=True)
        return True
    except ServerRefused as refused:
        if refused.status not in NO_SCHEMAS:
            raise SettingsError(str(refused)) from refused
        try:
            probe(structured=False)
        except ServerRefused as error:
            raise SettingsError(str(error)) from error
        logger.warning("%s. Going on without a schema for the answers.", refused)
        return False


class ServedOmni:
    """The ``RemoteTagger`` with a Qwen-Omni model on a server. Its tags have no scores."""

    device = ON_A_SERVER

    def __init__(
        self,
        name: str,
        server: ChatServer,
        facts: ServerFacts,
        dialogue: Dialogue,
        options: TaggingOptions,
        *,
        structured: bool,
    ) -> None:
        """``structured``: the server holds answers to the schema of the question.

        Raises:
            SettingsError: the options do not fit the model.
        """
        self._server = server
        self._model = facts.model
        self._dialogue = dialogue
        self._structured = structured
        self.plan = window_plan(name, options)
        self.batch = server.options.requests
        self.identity = _identity(name, self.plan, dialogue, facts, server.options, structured=structured)

    def ask(self, window: NDArray[np.float32]) -> Future[Heard]:
        """``(length,)`` mono float32 in [-1, 1] → the model's answer, parsed, as a future; see ``RemoteTagger``.

        The server gets 16-bit samples. An answer without an end is an error of the window, like an unreadable one.
        """
        self.plan.check(window[None], self.identity.name)
        return self._server.start(self._converse(_wav(window)))

    async def _converse(self, audio: bytes) -> Heard:
        async with self._server.places:
            conversation = Conversation(self._dialogue)
            while (question := conversation.question) is not None:
                body = _body(self._model, conversation, question, audio, structured=self._structured)
                try:
                    conversation.answer(await self._server.complete(body))
                except AnswerTooLong as error:
                    return Heard([], answer=conversation.transcript, error=f"unparseable: {error}")
                except ServerRefused:
                    self._server.takes_schemas.clear()  # it may be another server than the one that was asked
                    raise
            return conversation.heard


def _identity(
    name: str,
    plan: WindowPlan,
    dialogue: Dialogue,
    facts: ServerFacts,
    server: ServerOptions,
    *,
    structured: bool,
) -> ModelIdentity:
    questions = (*dialogue.questions, dialogue.repair)
    return ModelIdentity(
        name=name,
        sha256="",
        params={
            "sample_rate": SAMPLE_RATE,
            "window_frames": plan.length,
            "window_hop": plan.hop,
            "mode": dialogue.mode,
            "parser": PARSER_VERSION,
            "prompts_sha256": dialogue.sha256,
            "max_new_tokens": [question.max_new_tokens for question in questions],
            "temperature": 0,
            "structured": structured,  # in the lineage, and not in the input digest
            "served_model": facts.model,
            "revision": server.revision or UNKNOWN,
            "weights": NOT_HASHED,
            "server": facts.software,  # likewise
        },
    )


def _body(
    model: str, conversation: Conversation, question: Question, audio: bytes, *, structured: bool
) -> bytes:
    """The request for the answer to the open question, greedy, as JSON. ``audio`` is the window as a WAV file."""
    messages = [
        message | {"content": [_part(part, audio) for part in message["content"]]}
        if isinstance(message["content"], list)
        else message
        for message in conversation.messages
    ]
    body: dict[str, Any] = {
        "model": model,
        "messages": messages,
        "temperature": 0,
        "max_tokens": question.max_new_tokens,
    }
    if structured and question.schema is not None:
        schema = {"name": question.name.replace(" ", "_"), "schema": question.schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": schema}
    return json.dumps(body).encode()


def _part(part: dict[str, Any], audio: bytes) -> dict[str, Any]:
    if part["type"] != "audio":
        return part
    return {
        "type": "input_audio",
        "input_audio": {"data": base64.b64encode(audio).decode(), "format": "wav"},
    }


def _wav(samples: NDArray[np.float32]) -> bytes:
    """Mono samples in [-1, 1] as a WAV file of 16 bits."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE)
        out.writeframes(np.round(np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
    return file.getvalue()
