"""The conversation with a language model about one window: question after question, until the last answer is parsed."""

from dataclasses import replace
from typing import Any

from bandscope_dagster.tagging.prompts import Dialogue, Question
from bandscope_dagster.tagging.protocol import Heard


class Conversation:
    """The questions and answers about one window, for any engine that runs the model.

    The engine sends ``messages`` and the audio for as long as there is a ``question``, and passes on each ``answer``.
    An answer that cannot be parsed is asked for once more; if that fails too, the ``Heard`` has an error.
    """

    def __init__(self, dialogue: Dialogue) -> None:
        self.messages: list[dict[str, Any]] = [{"role": "system", "content": dialogue.system}]
        """Messages of a chat. The first question has a part ``{"type": "audio"}``, which is the place of the window."""
        self.question: Question | None = None  # the open one; None once the conversation is over
        self._dialogue = dialogue
        self._answers: list[tuple[str, str]] = []  # (name of the question, answer)
        self._unclear: Heard | None = None  # the answer that could not be parsed
        self._heard: Heard | None = None
        self._ask(dialogue.questions[0])

    def answer(self, text: str) -> None:
        """Add the model's answer to the open question, and open the next one, if there is one."""
        assert self.question is not None, "the conversation is over"
        self.messages.append({"role": "assistant", "content": text})
        self._answers.append((self.question.name, text))
        if len(self._answers) < len(self._dialogue.questions):
            self._ask(self._dialogue.questions[len(self._answers)])
            return
        heard = self._dialogue.parse(text)
        if heard.error is not None and self._unclear is None:
            self._unclear = heard
            self._ask(self._dialogue.repair)
            return
        if self._unclear is not None:
            notes = [f"asked again: the first answer was {self._unclear.error}", heard.note]
            heard = replace(heard, note="; ".join(note for note in notes if note))
        self.question = None
        self._heard = replace(heard, answer=self.transcript)

    @property
    def heard(self) -> Heard:
        """The result for the window; read it once the conversation is over."""
        assert self._heard is not None, "a question is open"
        return self._heard

    @property
    def transcript(self) -> str | None:
        """All answers, complete: a single one as it is, several ones each below the name of its question."""
        if len(self._answers) == 1:
            return self._answers[0][1]
        return "\n\n".join(f"[{name}]\n{text}" for name, text in self._answers) or None

    def _ask(self, question: Question) -> None:
        text = {"type": "text", "text": question.text}
        content = [text] if self._answers else [{"type": "audio", "audio": "the window"}, text]
        self.messages.append({"role": "user", "content": content})
        self.question = question
