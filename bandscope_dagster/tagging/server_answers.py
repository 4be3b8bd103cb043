"""Reading what a server of chat completions sends: the text, its own messages, and the pause that it asks for."""

import json
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

EXCERPT: Final = 300  # characters of a server's own message


def text_of(content: bytes) -> str:
    """The text of a chat completion, without the halves of characters that JSON can have and a table cannot.

    Raises ValueError, LookupError, TypeError or RecursionError if the answer is not a completion.
    """
    text = json.loads(content)["choices"][0]["message"]["content"]
    if not isinstance(text, str | None):
        raise TypeError(f"content is {type(text).__name__}")
    return whole_characters(text or "")


def whole_characters(text: str) -> str:
    """``text`` with U+FFFD in the place of each lone surrogate."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def message_of(content: bytes) -> str:
    """The message in a server's answer with an error: that of OpenAI's interface, or else the beginning of it all."""
    text = content[: 10 * EXCERPT].decode(errors="replace")
    try:
        document: Any = json.loads(content)
        return str(document.get("error", document).get("message", text))
    except (ValueError, AttributeError, RecursionError):
        return text


def pause_s_of(retry_after: str) -> float:
    """The seconds that a Retry-After asks for: a number or a date (RFC 9110, 10.2.3); 0 for anything else."""
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        due = parsedate_to_datetime(retry_after)
        return max(0.0, (due - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0
