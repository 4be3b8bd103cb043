"""tagging/answers: lists are found in any answer, prose gives no labels, and every loss has a note or an error."""

# ruff: noqa: RUF001 (full-width brackets, commas and quotes are meant)

import json
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bandscope_dagster.tagging.answers.parse import MAX_LABELS, parse_layers, parse_list
from bandscope_dagster.tagging.protocol import Heard

PROSE = "holds no list"
NOTHING = "named nothing"
NO_LABEL = "items is a label"
CUT = "truncated"
DROPPED = "no labels"


def answer(
    text: str, *expected: object, note: str | None = None, error: str | None = None
) -> tuple[object, ...]:
    """An answer, its tags, and a part of its note and of its error; None if it has none."""
    return text, list(expected), note, error


TURN = "invented turn"

LIST_ANSWERS: dict[str, tuple[object, ...]] = {
    # followed by a turn of the user that the model invented, and its own answer to that
    "human": answer(
        '["piano", "cello"]\nHuman: Which ones are in the next clip?\nAssistant: ["trumpet", "banjo"]',
        *("piano", "cello"),
        note=TURN,
    ),
    "tokens of a chat": answer(
        '["piano"]<|im_end|>\n<|im_start|>user\nAnd now?\n["trumpet"]', "piano", note=TURN
    ),
    "a heading": answer('["piano"]\n\n### User:\n["trumpet"]', "piano", note=TURN),
    "bold": answer(
        "- piano\n- cello\n\n**Question:** and here?\n- trumpet\n- banjo", "piano", "cello", note=TURN
    ),
    "of another language": answer('["钢琴"]\n用户:还有吗?\n["小号"]', "钢琴", note=TURN),
    "no turn: a label": answer('["human voice", "user"]', "human voice", "user"),
    "no turn: the beginning": answer('Human: ["piano"]', "piano"),
    # as requested
    "json": answer('["piano", "drums", "bass guitar"]', "piano", "drums", "bass guitar"),
    "one label": answer('["piano"]', "piano"),
    "over several lines": answer('[\n  "piano",\n  "drums"\n]\n', "piano", "drums"),
    "lines far apart": answer('[\n\n  "piano",\n\n  "drums"\n\n]', "piano", "drums"),
    "python": answer("['piano', 'drums']", "piano", "drums"),
    "python with an apostrophe": answer(
        "['singer\\'s voice', \"bird's whistle\"]", "singer's voice", "bird's whistle"
    ),
    "an apostrophe without escape": answer("['singer's voice', 'drums']", "singer's voice", "drums"),
    "quotes in quotes": answer('["the "808" kick", "snare"]', 'the "808" kick', "snare"),
    "tuple": answer("('piano', 'drums')", "piano", "drums"),
    "set": answer("{'piano', 'drums'}", "piano", "drums"),
    "trailing comma": answer('["piano", "drums",]', "piano", "drums"),
    "no comma between": answer('["piano" "drums"\n"bass"]', "piano", "drums", "bass"),
    "comments": answer('[\n"piano", // the melody\n"drums" # brushed\n]', "piano", "drums"),
    "without quotes": answer(
        "[piano, electric guitar (clean), drums]", "piano", "electric guitar (clean)", "drums"
    ),
    # with text around it
    "prose around": answer('Sure! Here\'s what I hear: ["piano", "drums"]. Hope it helps!', "piano", "drums"),
    "brackets in the prose": answer('[Intro] The song (a ballad [slow]) has: ["piano"] [1]', "piano"),
    "fenced": answer('```json\n["piano", "drums"]\n```', "piano", "drums"),
    "fenced without language": answer('```\n["piano"]\n```\nThese are the instruments.', "piano"),
    "fence never closed": answer('```json\n["piano", "drums"]', "piano", "drums"),
    "inline code": answer('The answer is `["piano"]`.', "piano"),
    "python assignment": answer("```python\ninstruments = ['piano', 'drums']\n```", "piano", "drums"),
    # another shape
    "object with one list": answer('{"instruments": ["piano", "drums"]}', "piano", "drums"),
    "object with one list under any key": answer('{"result": ["piano"], "confidence": 0.9}', "piano"),
    "object of which one list is meant": answer('{"moods": ["sad"], "instruments": ["piano"]}', "piano"),
    "object with labels in a string": answer(
        '{"instruments": "piano, drums and bass"}', "piano", "drums", "bass"
    ),
    "object in an object": answer('{"analysis": {"instruments": ["piano"]}}', "piano"),
    "list in a list": answer('[["piano", "drums"]]', "piano", "drums"),
    "items with a name": answer(
        '[{"instrument": "piano", "confidence": 0.9}, {"name": "drums"}]', "piano", "drums"
    ),
    "layers": answer(
        '{"foreground": ["vocals"], "background": ["pad"]}', "vocals", "pad", note="layers left out"
    ),
    "object of several lists": answer(
        '{"moods": ["sad"], "genres": ["rock"]}', error="no list is that of the instruments"
    ),
    "object of numbers": answer('{"piano": 0.9, "drums": 0.4}', error="no list is that of the instruments"),
    # text that is a list
    "bullets": answer("- piano\n- drums\n* bass guitar\n• pad", "piano", "drums", "bass guitar", "pad"),
    "numbered": answer("1. Piano\n2) Drums\n3、Bass", "Piano", "Drums", "Bass"),
    "bullets with prose around": answer(
        "I hear:\n\n- piano\n- drums (kick, snare)\n\nIt is slow.", "piano", "drums (kick, snare)"
    ),
    "bullets with descriptions": answer(
        "- **Piano**: soft chords.\n- Hi-hat – a steady pulse", "Piano", "Hi-hat"
    ),
    "bullets of which some are meant": answer(
        "**Mood:**\n- sad\n\n**Instruments:**\n- piano\n\n**Tempo:**\n- slow", "piano"
    ),
    "numbered sections": answer("1. **Instruments**: piano, drums\n2. **Mood**: sad", "piano", "drums"),
    "quoted bullets": answer('1. "Piano"\n2. “Drums”', "Piano", "Drums"),
    "a bullet of several": answer("- piano, drums, and bass", "piano", "drums", "bass"),
    "announced": answer("Instruments: piano, drums, bass guitar.", "piano", "drums", "bass guitar"),
    "announced in a sentence": answer(
        "The instruments in this clip are: a piano and drums", "a piano", "drums"
    ),
    "announced on the line before": answer(
        "Instruments:\npiano, drums\n\nA slow song, and sad.", "piano", "drums"
    ),
    # several lists
    "the last counts": answer('First ["piano"], no: ["piano", "drums"]', "piano", "drums", note="one of 2"),
    "the final counts": answer(
        'Final answer: ["piano"]\nI had thought of ["organ"]', "piano", note="one of 2"
    ),
    "the announced counts": answer('Instruments: ["piano"]\nMood: ["sad"]', "piano", note="one of 2"),
    "the complete counts": answer(
        '["piano", "drums"]\n\nOnce more: ["piano", "dr', "piano", "drums", note="one of 2"
    ),
    "a list begun again": answer(
        '["piano", "dr\n\nOnce more: ["piano", "drums"]', "piano", "drums", note="one of 2"
    ),
    # items that are not labels
    "numbers, null, nested": answer(
        '["piano", 5, null, true, ["drums"], {"a": 1}]', "piano", note=f"{DROPPED}: 5"
    ),
    "only numbers": answer("[1, 2, 3]", note=DROPPED, error=NO_LABEL),
    "a huge number": answer(f'["piano", {"9" * 5000}]', "piano", note=DROPPED),
    "no letters": answer('["", "  ", "...", "piano", "-", "🎹"]', "piano", note=f"{DROPPED}: 5"),
    "a sentence": answer('["I hear a piano and some drums.", "piano"]', "piano", note=DROPPED),
    "only a sentence": answer('["There is a piano that plays softly"]', note=DROPPED, error=NO_LABEL),
    "too long": answer(f'["{"very " * 20}loud drums", "piano"]', "piano", note=DROPPED),
    "an ellipsis": answer('["piano", "drums", ...]', "piano", "drums", note=DROPPED),
    "label and score in pairs": answer("[('piano', 0.9), ('drums', 0.8)]", note=DROPPED, error=NO_LABEL),
    # duplicates and loops
    "twice": answer('["Piano", "drums", " PIANO ", "piano."]', "Piano", "drums"),
    "looping": answer(str(["piano", "drums"] * 100), "piano", "drums", note="looping: 198"),
    "looping until the token limit": answer(
        '["piano", ' + '"drums", ' * 300 + '"dr', "piano", "drums", note="looping: 299"
    ),
    "looping bullets": answer("- piano\n" * 500, "piano", note="looping: 499"),
    "counting up": answer(
        json.dumps([f"guitar {n}" for n in range(200)]),
        *[f"guitar {n}" for n in range(MAX_LABELS)],
        note="labels cut",
    ),
    # cut off
    "cut in a label": answer('["electric guitar", "dru', "electric guitar", note=CUT),
    "cut after a label": answer('["electric guitar", "drums"', "electric guitar", "drums", note=CUT),
    "cut in a fence": answer('```json\n["piano",\n"dru\n```', "piano", note=CUT),
    "cut in an escape": answer('["piano", "caj\\u00', "piano", note=CUT),
    "cut in an object": answer('{"instruments": ["piano", "dru', "piano", note=CUT),
    "cut before the list that is meant": answer('{"moods": ["sad"], "instru', error="unparseable"),
    "cut without quotes": answer("[piano, dru", "piano", note=CUT),
    "cut in the first label": answer('["electric gui', note=CUT, error="before its first label"),
    "cut at once": answer("[", note=CUT, error="before its first label"),
    "prose after the cut": answer(
        '["piano", "drums"\n\nThe piano, soft and warm, leads.', "piano", "drums", note=CUT
    ),
    # nothing
    "empty list": answer("[]", note=NOTHING),
    "empty list in prose": answer("I hear no instrument:\n```json\n[]\n```", note=NOTHING),
    "empty object": answer("{}", note=NOTHING),
    "object with an empty list": answer('{"instruments": []}', note=NOTHING),
    "none": answer("None.", note=NOTHING),
    "a list of none": answer('["none"]', note=NOTHING),
    "announced none": answer("Instruments: none", note=NOTHING),
    "the empty answer": answer("", error="is empty"),
    "only white space": answer(" \n\t", error="is empty"),
    # no structure
    "prose": answer("I hear a piano and some drums.", error=PROSE),
    "prose with commas": answer("A slow, sad song with piano, drums, and strings.", error=PROSE),
    "prose after a colon": answer("The answer: I hear a piano, and drums.", error=PROSE),
    "a refusal": answer("Sorry, I cannot listen to audio.", error=PROSE),
    "prose with brackets": answer("[Music] A piano (soft) plays [0:00-0:30].", error=PROSE),
    "punctuation": answer("...!?", error=PROSE),
    # other scripts and stray characters
    "accents": answer('["cajón", "accordéon", "Bandone\\u00f3n"]', "cajón", "accordéon", "Bandoneón"),
    "curly quotes": answer("[“piano”, “drums”, ‘bass’]", "piano", "drums", "bass"),
    "full-width brackets and commas": answer("【“钢琴”，“鼓”、“吉他”】", "钢琴", "鼓", "吉他"),
    "chinese": answer('我听到的乐器有：["钢琴", "架子鼓"]', "钢琴", "架子鼓"),
    "chinese without brackets": answer("乐器：钢琴、鼓、电吉他", "钢琴", "鼓", "电吉他"),
    "chinese prose": answer("我听到了钢琴和鼓的声音。", error=PROSE),
    "german": answer("Instrumente: Klavier, Schlagzeug und Geige", "Klavier", "Schlagzeug", "Geige"),
    "german bullets": answer(
        "Ich höre folgende Instrumente:\n- Klavier\n- Kontrabass", "Klavier", "Kontrabass"
    ),
    "emoji": answer('["🎹 piano", "drums \\ud83e\\udd41"]', "🎹 piano", "drums 🥁"),
    "zero-width characters": answer('\ufeff[\u200b"pia\u200bno", "\u2060drums"]', "piano", "drums"),
    "lone surrogates": answer('["pia\ud800no", "\\udc00 drums"]', "pia no", "\ufffd drums"),
    "control characters": answer(
        '["piano\x00", "electric\tguitar", "bass\\n"]', "piano", "electric guitar", "bass"
    ),
}

F, M, B = "foreground", "middle_ground", "background"
WHOLE = '{"background": ["pad"], "middle_ground": ["piano", "bass"], "foreground": ["vocals"]}'
WHOLE_TAGS = [("pad", B), ("piano", M), ("bass", M), ("vocals", F)]

LAYERS_ANSWERS: dict[str, tuple[object, ...]] = {
    # as asked
    "json": answer(WHOLE, *WHOLE_TAGS),
    "python": answer(str(json.loads(WHOLE)), *WHOLE_TAGS),
    "indented and fenced": answer(f"```json\n{json.dumps(json.loads(WHOLE), indent=2)}\n```", *WHOLE_TAGS),
    "prose around": answer(f"The vocals lead (foreground), so: {WHOLE} That is all.", *WHOLE_TAGS),
    "missing keys": answer('{"foreground": ["vocals"]}', ("vocals", F)),
    "one layer empty": answer('{"background": [], "foreground": ["vocals"]}', ("vocals", F)),
    "null for a layer": answer('{"background": null, "foreground": ["vocals"]}', ("vocals", F)),
    # keys in other spelling
    "upper case": answer('{"Background": ["pad"], "FOREGROUND": ["vocals"]}', ("pad", B), ("vocals", F)),
    "middleground": answer('{"middleground": ["piano"]}', ("piano", M)),
    "middle ground": answer('{"Middle Ground": ["piano"]}', ("piano", M)),
    "mid_ground": answer(
        '{"mid_ground": ["piano"], "foreground_layer": ["vocals"]}', ("piano", M), ("vocals", F)
    ),
    "numbered": answer('{"1. Background:": ["pad"], "2. Mid-ground:": ["piano"]}', ("pad", B), ("piano", M)),
    "without quotes": answer("{foreground: ['vocals'], background: [pad]}", ("vocals", F), ("pad", B)),
    "chinese": answer(
        '{"前景": ["人声"], "中景": ["钢琴"], "背景"：【“弦乐”】}', ("人声", F), ("钢琴", M), ("弦乐", B)
    ),
    "german": answer(
        '{"Vordergrund": ["Gesang"], "Hintergrund": ["Streicher"]}', ("Gesang", F), ("Streicher", B)
    ),
    # another shape
    "strings for lists": answer(
        '{"foreground": "lead vocals", "background": "pad, strings"}',
        ("lead vocals", F),
        ("pad", B),
        ("strings", B),
    ),
    "wrapped": answer(f'{{"layers": {WHOLE}}}', *WHOLE_TAGS),
    "a list of objects": answer(
        '[{"background": ["pad"]}, {"foreground": ["vocals"]}]', ("pad", B), ("vocals", F)
    ),
    "lists with a description": answer(
        '{"foreground": {"instruments": ["vocals"], "description": "clear"}}', ("vocals", F)
    ),
    "items with a name": answer('{"foreground": [{"name": "vocals", "score": 1}]}', ("vocals", F)),
    "items with a layer": answer('[{"instrument": "vocals", "layer": "Foreground"}]', ("vocals", F)),
    "a plain list": answer('["vocals", "pad"]', ("vocals", None), ("pad", None), note="without a layer"),
    "an object without layers": answer(
        '{"instruments": ["vocals"]}', ("vocals", None), note="without a layer"
    ),
    "a list for each": answer('Foreground: ["vocals"]\nBackground: ["pad"]', ("vocals", F), ("pad", B)),
    "lines": answer(
        "Foreground: vocals\nMiddle ground: piano, bass\nBackground: none",
        ("vocals", F),
        ("piano", M),
        ("bass", M),
    ),
    "bullets": answer(
        "### Foreground\n- vocals\n\n**Background:**\n- pad\n- strings",
        ("vocals", F),
        ("pad", B),
        ("strings", B),
    ),
    "numbered lines": answer(
        "1. **Foreground (melody)**: vocals\n2. **Background**: pad", ("vocals", F), ("pad", B)
    ),
    "only bullets": answer("- vocals\n- pad", ("vocals", None), ("pad", None), note="without a layer"),
    "a plan before it": answer(
        'Foreground: the vocals are clear.\n\n{"foreground": ["vocals"]}', ("vocals", F)
    ),
    "a list before it": answer(f'I hear ["pad", "vocals"].\n{WHOLE}', *WHOLE_TAGS, note="one of 2"),
    "a list after it": answer(f'{WHOLE}\nAll of them: ["pad", "vocals"]', *WHOLE_TAGS, note="one of 2"),
    # items that are not labels, duplicates
    "in two layers": answer(
        '{"background": ["Piano", "pad"], "foreground": ["piano"]}',
        ("Piano", F),
        ("pad", B),
        note="foremost of several layers",
    ),
    "the same in the foremost first": answer(
        '{"foreground": ["piano"], "background": ["piano"]}', ("piano", F), note="foremost of several layers"
    ),
    "twice in a layer": answer('{"background": ["pad", "Pad"]}', ("pad", B)),
    "another list": answer('{"foreground": ["vocals"], "effects": ["reverb"]}', ("vocals", F), note=DROPPED),
    "wrong types": answer(
        '{"foreground": ["vocals", 3, ["a"]], "background": 7}', ("vocals", F), note=f"{DROPPED}: 3"
    ),
    "only wrong types": answer(
        '{"foreground": 1, "background": {"pad": true}}', note=DROPPED, error=NO_LABEL
    ),
    "looping": answer('{"background": [' + '"pad", ' * 500, ("pad", B), note="looping: 499"),
    # cut off
    "cut in a label": answer(WHOLE[: WHOLE.index("bass") + 2], ("pad", B), ("piano", M), note=CUT),
    "cut in a key": answer(WHOLE[: WHOLE.index("foreground") + 4], *WHOLE_TAGS[:3], note=CUT),
    "cut after a key": answer('{"background"', error="before its first label"),
    "a bracket forgotten": answer(
        '{"foreground": ["vocals"], "background": ["pad"]', ("vocals", F), ("pad", B), note=CUT
    ),
    # nothing
    "all empty": answer('{"background": [], "middle_ground": [], "foreground": []}', note=NOTHING),
    "none in each": answer('{"background": "none", "foreground": ["None"]}', note=NOTHING),
    "empty object": answer("{}", note=NOTHING),
    "empty list": answer("[]", note=NOTHING),
    "cut with empty layers": answer('{"background": [], "fore', note=CUT, error="before its first label"),
    "prose": answer("The vocals are in the foreground, a pad is in the background.", error=PROSE),
}


def assert_says(heard: Heard, note: str | None, error: str | None) -> None:
    assert (heard.note is None) == (note is None) and (note or "") in (heard.note or ""), heard
    assert (heard.error is None) == (error is None) and (error or "") in (heard.error or ""), heard
    assert heard.error is None or heard.error.startswith("unparseable: ")


@pytest.mark.parametrize(("text", "labels", "note", "error"), LIST_ANSWERS.values(), ids=LIST_ANSWERS)
def test_answers_in_list_mode(text: str, labels: list[str], note: str | None, error: str | None):
    heard = parse_list(text)
    assert [tag.label for tag in heard.tags] == labels
    assert all(tag.score is None and tag.layer is None for tag in heard.tags)
    assert_says(heard, note, error)


@pytest.mark.parametrize(("text", "tags", "note", "error"), LAYERS_ANSWERS.values(), ids=LAYERS_ANSWERS)
def test_answers_in_layers_mode(
    text: str, tags: list[tuple[str, str | None]], note: str | None, error: str | None
):
    heard = parse_layers(text)
    assert [(tag.label, tag.layer) for tag in heard.tags] == tags
    assert all(tag.score is None for tag in heard.tags)
    assert_says(heard, note, error)


HOSTILE = {
    "one list": '["piano", "drums", "bass"]' * 40_000,
    "one endless list": '["piano", ' * 100_000,
    "brackets": "[" * 1_000_000,
    "braces": '{"foreground":' * 70_000,
    "brackets of all kinds": "[{(【" * 250_000,
    "brackets on lines of their own": "\n[a" * 300_000,
    "closing brackets": "[" + "]})" * 300_000,
    "a quote before every letter": "[" + "'a " * 300_000,
    "quotes": '["' + "'\"" * 500_000,
    "backslashes": '["' + "\\" * 1_000_000,
    "white space": " " * 1_000_000,
    "white space before a bracket": (" " * 1000 + "[") * 1000,
    "empty lines": "\n" * 1_000_000 + "[",
    "empty lines in a list": "[" + "\n" * 1_000_000,
    "commas": "Instruments: " + "," * 1_000_000,
    "open brackets in commas": "Instruments: " + "(a," * 300_000,
    "colons": "a:" * 500_000,
    "bullets": "- piano\n" * 120_000,
    "digits": "[" + "1" * 1_000_000 + "]",
    "asterisks": "*" * 1_000_000,
    "a word": "- " + "a" * 1_000_000,
    "sections": "Foreground:\n" * 90_000,
    "titled lists": 'Foreground: ["a"]\n' * 60_000,
    "different labels": json.dumps([f"guitar {n}" for n in range(70_000)]),
    "invisible": "[" + "\u200b" * 1_000_000,
}


@pytest.mark.parametrize("parse", [parse_list, parse_layers])
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_megabyte_is_parsed_and_never_silently_empty(parse: Callable[[str], Heard], text: str):
    heard = parse(text)
    assert heard.answer == text and (heard.tags or heard.note or heard.error)


def test_a_note_says_that_the_end_of_a_long_answer_was_not_read():
    heard = parse_list('["piano"]' + " " * 200_000)
    assert [tag.label for tag in heard.tags] == ["piano"]
    assert heard.note == "only the first 50000 of 200009 characters read"


LABELS = st.lists(
    st.sampled_from([
        "piano", "808 kick", "male lead vocal", "hi-hats", "cajón", "синтезатор", "二胡", "drums (brushed)",
        "singer's voice", "keys/synth", "Rhodes & Wurlitzer", "R'n'B beat", 'the "big" drum', "bass, slapped",
        "guitar [left]", "pad {warm}", "🥁 kit", "strings: high", "back\\slash", "“warm” pad", "violin I",
    ]),
    max_size=12,
    unique=True,
)  # fmt: skip
SPELLINGS: dict[str, Callable[[object], str]] = {
    "json": json.dumps,
    "json in unicode": lambda value: json.dumps(value, ensure_ascii=False),
    "json over lines": lambda value: json.dumps(value, indent=2, ensure_ascii=False),
    "python": repr,
    "fenced": lambda value: f"```json\n{json.dumps(value)}\n```",
    "fenced python": lambda value: f"```python\ninstruments = {value!r}\n```",
    "prose around": lambda value: f"Sure, here's what I hear (in order): {json.dumps(value)}. Anything else?",
    "announced": lambda value: f"Instruments:\n{json.dumps(value)}\n\nThe song is slow, and sad.",
}
SPELLED = st.sampled_from(sorted(SPELLINGS))


@given(LABELS, SPELLED)
def test_labels_are_read_exactly_as_written(labels: list[str], spelling: str):
    heard = parse_list(SPELLINGS[spelling](labels))
    assert [tag.label for tag in heard.tags] == labels
    assert heard.error is None


@given(LABELS, LABELS, SPELLED)
def test_layers_are_read_exactly_as_written(front: list[str], back: list[str], spelling: str):
    back = [label for label in back if label not in front]
    answer: object = {"background": back, "middle_ground": [], "foreground": front}
    heard = parse_layers(SPELLINGS[spelling](answer))
    assert [(tag.label, tag.layer) for tag in heard.tags] == [
        *((b, B) for b in back),
        *((f, F) for f in front),
    ]


@given(LABELS, SPELLED, st.floats(0, 1))
def test_a_cut_never_invents_a_label(labels: list[str], spelling: str, where: float):
    text = SPELLINGS[spelling](labels)
    cut = text[: int(where * len(text))]
    found = [tag.label for tag in parse_list(cut).tags]
    assert found == labels[: len(found)]


@given(LABELS, LABELS, SPELLED, st.floats(0, 1), st.sampled_from([parse_list, parse_layers]))
def test_a_cut_through_layers_never_invents_a_label(
    front: list[str], back: list[str], spelling: str, where: float, parse: Callable[[str], Heard]
):
    text = SPELLINGS[spelling]({"background": back, "middle_ground": [], "foreground": front})
    for tag in parse(text[: int(where * len(text))]).tags:
        assert tag.label in (front if tag.layer == F else back if tag.layer == B else [*front, *back])


FRAGMENTS = st.sampled_from([
    "[", "]", "{", "}", "(", ")", "【", "】", "“", "”", '"', "'", ",", "，", ":", "：", "\n", "\n\n", "- ", "1. ",
    "```", "```json\n", "\\", "\\u", "\\ud83e", "piano", "electric guitar", "foreground", "middle ground",
    "Instruments", "none", "null", "3", "🎹", "\u200b", "\x00", "\ud800", " ", "//", "#", "I hear", ".", "name",
])  # fmt: skip
ANSWERS = st.text() | st.lists(FRAGMENTS).map("".join)


@pytest.mark.parametrize("parse", [parse_list, parse_layers])
@given(ANSWERS)
@example('{"foreground": {"foreground": {"foreground"')
def test_any_answer_is_kept_and_has_tags_a_note_or_an_error(parse: Callable[[str], Heard], text: str):
    heard = parse(text)
    assert heard.answer == text
    assert heard.tags or heard.note or heard.error
    assert not (heard.tags and heard.error)
    assert len(heard.tags) <= MAX_LABELS
    for tag in heard.tags:
        assert tag.label and tag.label.isprintable() and tag.label == tag.label.strip()
        assert any(char.isalnum() for char in tag.label)
        assert tag.score is None and (tag.layer is None or parse is parse_layers)
