"""Which answers are usable phrases, and that absent hints never reach a backend."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from planish_egovid.captions import CaptionBackend, caption
from planish_egovid.captions.action_class import as_words
from planish_egovid.captions.prompts import DESCRIBE, condensing
from planish_egovid.captions.sampling import caption_times
from planish_egovid.captions.template import TemplateCaptions
from planish_egovid.captions.validation import VERBS, fault, tidied, verb_forms
from planish_egovid.video.request import VideoInfo

FRAMES = np.zeros((2, 8, 8, 3), np.uint8)


class Scripted:
    """Gives the answers that it is told to give, and keeps what it was asked."""

    name = "scripted"
    looks_at_frames = True
    parallel = 1

    def __init__(self, *phrases: str, descriptions: tuple[str, ...] = ("A hand opens a drawer.",)) -> None:
        self.phrases, self.descriptions = list(phrases), list(descriptions)
        self.asked: list[tuple[str, str | None, str | None, str | None]] = []

    def describe(self, frames: Any) -> str:
        return self.descriptions.pop(0)

    def condense(self, text: str, verb: str | None, noun: str | None, *, complaint: str | None = None) -> str:
        self.asked.append((text, verb, noun, complaint))
        return self.phrases.pop(0)


@pytest.mark.parametrize(
    "phrase",
    ["open the drawer", "Opens the drawer", "opening the drawer", "cutting bread", "ties a knot", "put-down the pan",
     "decanting the wine", "Wash, rinse and dry the plates", "tying shoes"],
)  # fmt: skip
def test_usable_phrases(phrase: str) -> None:
    assert fault(phrase) is None


@pytest.mark.parametrize(
    ("phrase", "says"),
    [
        ("", "empty"),
        ("open " + "the big " * 20, "41 words, more than 40"),
        ("the person opens a drawer", "'the', which is no verb"),
        ("I open the drawer", "'I', which is no verb"),
        ("drawer opens", "'drawer', which is no verb"),
        ("ceiling lamp is on", "'ceiling', which is no verb"),
        ("打开抽屉", "not in English"),
        ("open 打开抽屉 抽屉", "not in English"),
        ("открыть ящик", "not in English"),
        ("12 34", "not in English"),
    ],
)
def test_unusable_phrases_say_why(phrase: str, says: str) -> None:
    assert says in (fault(phrase) or "")


def test_forty_words_are_allowed() -> None:
    assert fault(" ".join(["open", *["it"] * 39])) is None
    assert fault("open the big drawer", words=3) is not None


def test_verbs_can_be_added() -> None:
    assert fault("decant the wine") is not None
    assert fault("decants the wine", verbs=frozenset({"decant"})) is None


@pytest.mark.parametrize(
    ("verb", "forms"),
    [
        ("open", {"open", "opens", "opening"}),
        ("cut", {"cut", "cuts", "cuting", "cutting"}),
        ("wash", {"wash", "washes", "washing"}),
        ("carry", {"carry", "carries", "carrying"}),
        ("take", {"take", "takes", "taking"}),
        ("tie", {"tie", "ties", "tying"}),
        ("play", {"play", "plays", "playing"}),
        ("knee", {"knee", "knees", "kneeing"}),
    ],
)
def test_forms_of_verbs(verb: str, forms: set[str]) -> None:
    # A participle may be there in a wrong spelling beside the right one ("openning"): it is a verb form all the same.
    assert forms <= verb_forms(verb)
    assert len(verb_forms(verb)) <= 4


def test_the_verb_list_is_one_of_base_forms() -> None:
    assert len(VERBS) > 300
    assert all(verb.isalpha() and verb.islower() for verb in VERBS)
    assert not {"the", "a", "person", "camera", "video", "i"} & VERBS


@pytest.mark.parametrize(
    ("answer", "tidy"),
    [
        ('  "Open the drawer."\n', "Open the drawer"),
        ("**cut bread**", "cut bread"),
        ("‘pour\n  milk’", "pour milk"),
        ("wash the pan", "wash the pan"),
        ('""', ""),
    ],
)
def test_answers_are_tidied(answer: str, tidy: str) -> None:
    assert tidied(answer) == tidy


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("cut_(trim,_slice,_chop)", "cut"),
        ("turn-on_(switch-on,_start,_light)", "turn on"),
        ("Bag_(bag,_grocery)", "bag"),
        (float("nan"), None),
        ("nan", None),
        (None, None),
        ("", None),
        ("(odd)", None),
    ],
)
def test_class_labels_become_words(label: object, words: str | None) -> None:
    assert as_words(label) == words


@pytest.mark.parametrize("hint", [float("nan"), "nan", "NaN", None, ""])
def test_absent_hints_never_reach_a_prompt(hint: object) -> None:
    backend = Scripted("open the drawer")
    found = caption(backend, FRAMES, verb=hint, noun=hint)
    assert found.name == "open the drawer"
    text, verb, noun, _ = backend.asked[0]
    prompt = condensing(text, verb, noun, 40)
    assert "nan" not in prompt.lower()
    assert "None" not in prompt
    assert "labelled" not in prompt


def test_hints_reach_the_prompt() -> None:
    prompt = condensing("A hand.", "cut", "apple", 12, "it is empty")
    assert all(part in prompt for part in ("cut", "apple", "12 words", "it is empty", "A hand."))
    assert DESCRIBE


def test_a_bad_answer_is_asked_about_once_more_with_the_complaint() -> None:
    backend = Scripted("The drawer", '"Open the drawer."')
    found = caption(backend, FRAMES)
    assert (found.name, found.reason, found.attempts) == ("Open the drawer", None, 2)
    assert [asked[3] for asked in backend.asked] == [None, "it begins with 'The', which is no verb"]


def test_two_bad_answers_give_null_with_the_reason() -> None:
    found = caption(Scripted("The drawer", "Some drawer"), FRAMES)
    assert found.name is None
    assert found.reason == "no usable phrase: it begins with 'Some', which is no verb"
    assert found.description == "A hand opens a drawer."


def test_an_empty_description_is_asked_for_once_more() -> None:
    assert caption(Scripted("open it", descriptions=("", "A hand.")), FRAMES).name == "open it"
    found = caption(Scripted(descriptions=("", " \n")), FRAMES)
    assert (found.name, found.reason) == (None, "the description is empty")


def test_the_hinted_verb_may_begin_the_phrase() -> None:
    assert caption(Scripted("decant the wine"), FRAMES, verb="decant_(pour)").name == "decant the wine"


def test_the_template_writes_from_labels() -> None:
    backend = TemplateCaptions()
    assert isinstance(backend, CaptionBackend)
    assert caption(backend, None, verb="cut_(trim,_slice)", noun="apple_(apple)").name == "cut the apple"
    assert caption(backend, None, verb="walk", noun=float("nan")).name == "walk"
    assert caption(backend, None, text="#C C opens the door").name == "opens the door"
    assert caption(backend, None, text="#O The man X walks").reason is not None
    nothing = caption(backend, None, text="nan", verb=None)
    assert (nothing.name, nothing.attempts) == (None, 0)
    assert nothing.reason is not None
    assert nothing.reason.startswith("no_text")


def test_a_frame_a_second_or_sixteen_evenly() -> None:
    video = VideoInfo(width=64, height=36, fps=30.0, frames=None, duration_s=None)

    def frames(duration_s: float) -> list[int]:
        return [int(time * 30) for time in caption_times(video, duration_s)]

    assert frames(4.0) == [0, 30, 60, 90]
    assert frames(4.034) == [0, 30, 60, 90, 120]
    assert frames(0.5) == [0]
    assert frames(0.01) == [0]
    assert len(frames(16.0)) == 16
    assert len(frames(31.0)) == 16
    assert frames(31.0)[-1] == 929, "the last frame of the clip"
    assert np.ptp(np.diff(caption_times(video, 31.0))) < 1e-9
