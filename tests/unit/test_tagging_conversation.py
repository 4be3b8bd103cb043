"""tagging/conversation: the order of questions, the second question after an unreadable answer, and the transcript."""

from bandscope_dagster.tagging.conversation import Conversation
from bandscope_dagster.tagging.prompts import LAYERS_SCHEMA, LIST_SCHEMA, load_dialogue
from bandscope_dagster.tagging.protocol import Tag

LIST = '["piano", "drums"]'
PROSE = "I cannot say."


def roles(conversation: Conversation) -> list[str]:
    return [message["role"] for message in conversation.messages]


def test_a_list_takes_one_question_with_the_audio_before_its_text() -> None:
    conversation = Conversation(load_dialogue("list"))
    assert roles(conversation) == ["system", "user"]
    assert [part["type"] for part in conversation.messages[1]["content"]] == ["audio", "text"]
    conversation.answer(LIST)
    assert conversation.question is None
    heard = conversation.heard
    assert (heard.answer, heard.error, list(heard.tags)) == (
        LIST,
        None,
        [Tag("piano", None), Tag("drums", None)],
    )


def test_layers_take_a_second_question_in_the_same_chat_without_the_audio() -> None:
    conversation = Conversation(load_dialogue("layers"))
    conversation.answer("A piano in front.")
    assert roles(conversation) == ["system", "user", "assistant", "user"]
    assert [part["type"] for part in conversation.messages[-1]["content"]] == ["text"]
    conversation.answer('{"background": [], "middle_ground": [], "foreground": ["piano"]}')
    assert conversation.question is None
    assert conversation.heard.tags == [Tag("piano", None, "foreground")]


def test_an_unreadable_answer_is_asked_for_once_more_and_no_third_time() -> None:
    conversation = Conversation(load_dialogue("list"))
    conversation.answer(PROSE)
    assert conversation.question is not None and conversation.question.name == "repaired answer"
    conversation.answer(PROSE)
    assert conversation.question is None
    assert conversation.heard.error is not None and conversation.heard.error.startswith("unparseable: ")
    assert conversation.heard.answer == f"[list]\n{PROSE}\n\n[repaired answer]\n{PROSE}"


def test_an_empty_answer_is_unreadable_too() -> None:
    conversation = Conversation(load_dialogue("list"))
    conversation.answer("")
    conversation.answer(LIST)
    assert conversation.heard.error is None
    assert conversation.heard.note is not None and conversation.heard.note.startswith("asked again")


def test_schemas_are_those_of_what_is_parsed() -> None:
    of_list, of_layers = load_dialogue("list"), load_dialogue("layers")
    assert [question.schema for question in (*of_list.questions, of_list.repair)] == [LIST_SCHEMA] * 2
    assert [question.schema for question in (*of_layers.questions, of_layers.repair)] == [
        None,
        LAYERS_SCHEMA,
        LAYERS_SCHEMA,
    ]
