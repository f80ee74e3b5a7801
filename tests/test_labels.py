"""Labels come from published sets or a user's file, and the prompts around them are those of each encoder's authors."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidx import encoders
from vidx.encoders._label_sets import LABEL_SETS, as_words, published_names
from vidx.encoders._prompts import prompts_of
from vidx.errors import InputError
from vidx.search._tag_scores import texts_of
from vidx.search.labels import Label, digest_of, read_labels, read_texts, set_name

SIZES = {"kinetics400": 400, "kinetics600": 600, "ucf101": 101, "hmdb51": 51, "activitynet": 200}


def written(folder: Path, name: str, data: str | bytes) -> str:
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return str(path)


def refusal(folder: Path, name: str, data: str | bytes) -> str:
    """What is said of a file of labels that can't be used."""
    with pytest.raises(InputError) as raised:
        read_labels(written(folder, name, data))
    assert raised.value.hint
    assert "\n" not in str(raised.value)
    assert name in str(raised.value)
    return str(raised.value)


@pytest.mark.parametrize("name", LABEL_SETS)
def test_a_published_set_has_as_many_labels_as_its_authors_say(name: str) -> None:
    found = read_labels(name)
    assert (found.name, found.published) == (name, name)
    assert len(set(found.names)) == len(found.labels) == SIZES[name]
    assert all(label.texts == (label.name,) and re.fullmatch(r"[^\W_].*\S", label.name) for label in found.labels)
    assert not any("_" in label.name for label in found.labels)


@pytest.mark.parametrize(
    ("name", "first", "last", "known"),
    [
        ("kinetics400", "abseiling", "zumba", "climbing ladder"),
        ("kinetics600", "abseiling", "zumba", "backflip (human)"),
        ("ucf101", "apply eye makeup", "yo yo", "tai chi"),
        ("hmdb51", "brush hair", "wave", "climb stairs"),
        ("activitynet", "Applying sunscreen", "Zumba", "Tai chi"),
    ],
)
def test_published_labels_keep_their_order_and_read_as_people_write_them(
    name: str, first: str, last: str, known: str
) -> None:
    names = read_labels(name).names
    assert (names[0], names[-1]) == (first, last)
    assert known in names


def test_camel_case_loses_no_letter_of_a_class_name() -> None:
    for published, shown in zip(published_names("ucf101"), read_labels("ucf101").names, strict=True):
        assert shown.replace(" ", "") == published.lower()
        assert shown.count(" ") == len(re.findall("[A-Z]", published)) - 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("ApplyEyeMakeup", "apply eye makeup"),
        ("brush_hair", "brush hair"),
        ("__shake__hands_", "shake hands"),
        ("climbing stairs", "climbing stairs"),
        ("Zumba", "Zumba"),
        ("USA", "USA"),
        ("Tai chi", "Tai chi"),
        ("GoPro video", "GoPro video"),
        ("été", "été"),
    ],
)
def test_names_of_classes_become_words(name: str, words: str) -> None:
    assert as_words(name) == words


def test_a_text_file_has_a_label_on_each_line(tmp_path: Path) -> None:
    text = "\ufeffclimbing  stairs\r\n\r\n   \t\r\nBrushHair\r\n\tshake_hands \r\ncafé, été\r\n"
    found = read_labels(written(tmp_path, "my labels.v2.txt", text))
    assert (found.name, found.published, found.parents) == ("my-labels-v2", None, ())
    assert found.labels == (
        Label("climbing stairs", ("climbing stairs",)),
        Label("BrushHair", ("brush hair",)),
        Label("shake_hands", ("shake hands",)),
        Label("café, été", ("café, été",)),
    )


def test_a_table_has_synonyms_parents_and_thresholds(tmp_path: Path) -> None:
    text = (
        "\ufefflabel,synonyms,parent,threshold,id\r\n"
        '"stairs, climbing",walking up stairs| going  upstairs |,moving,0.25,7\r\n'
        "\r\n"
        "RideBike,ride bike|cycling,moving,,8\r\n"
        "cooking,,,1,\r\n"
        "sitting\r\n"
    )
    found = read_labels(written(tmp_path, "mine.CSV", text))
    assert found.labels == (
        Label("stairs, climbing", ("stairs, climbing", "walking up stairs", "going upstairs"), "moving", 0.25),
        Label("RideBike", ("ride bike", "cycling"), "moving"),
        Label("cooking", ("cooking",), None, 1.0),
        Label("sitting", ("sitting",)),
    )
    assert found.parents == ("moving",)


def test_a_column_called_name_does_as_well(tmp_path: Path) -> None:
    found = read_labels(written(tmp_path, "a.csv", "id,name\n0,abseiling\n1,zumba\n"))
    assert found.names == ("abseiling", "zumba")


def test_a_quoted_cell_may_go_over_two_lines(tmp_path: Path) -> None:
    found = read_labels(written(tmp_path, "a.csv", 'label,synonyms\n"brush\nhair","combing|\r\ndoing hair"\n'))
    assert found.labels == (Label("brush hair", ("brush hair", "combing", "doing hair")),)


@pytest.mark.parametrize(
    ("name", "data", "line", "what"),
    [
        ("a.csv", "label,threshold\na,0.5\nb,1.5\n", 3, "'1.5'"),
        ("a.csv", "label,threshold\na,often\n", 2, "'often'"),
        ("a.csv", "label,threshold\na,nan\n", 2, "'nan'"),
        ("a.csv", "label,threshold\n\n\na,-0.1\n", 4, "'-0.1'"),
        ("a.csv", "label,parent\n,moving\n", 2, "no label"),
        ("a.csv", "label,parent\na,b,c\n", 2, "more cells"),
        ("a.csv", 'label\na\n"b"c\n', 3, "expected after"),
        ("a.csv", 'label\n"a\n', 2, "unexpected end"),
        ("a.csv", "label\na\nb\na\n", 4, "'a' is there twice"),
        ("a.txt", "a\n\nb\n a \n", 4, "'a' is there twice"),
        ("a.csv", "label,parent\na,b\nb,\n", 2, "'b' is a label and a parent"),
        ("a.txt", "a\nbell \x07\n", 2, "can't be printed"),
        ("a.csv", "label,parent\na,bell \x07\n", 2, "can't be printed"),
        ("a.csv", "label\nzero \x00\n", 2, "can't be printed"),
        ("a.txt", "___\n", 1, "'___'"),
    ],
)
def test_what_is_wrong_with_a_label_is_told_with_its_line(
    tmp_path: Path, name: str, data: str, line: int, what: str
) -> None:
    told = refusal(tmp_path, name, data)
    assert f"line {line}" in told
    assert what in told


@pytest.mark.parametrize(
    ("name", "data", "what"),
    [
        ("a.txt", "", "0 labels"),
        ("a.txt", "\n \n", "0 labels"),
        ("a.csv", "", "no column `label`"),
        ("a.csv", "label,parent\n", "0 labels"),
        ("a.csv", "action,parent\na,b\n", "no column `label`"),
        ("a.csv", "label,colour\na,b\n", "'colour' is not known"),
        ("a.csv", "label,label\na,b\n", "label"),
        ("a.txt", "café\n".encode("latin-1"), "no text in UTF-8"),
        ("a.txt", "".join(f"label {n}\n" for n in range(20_001)), "20001 labels"),
    ],
)  # fmt: skip
def test_what_else_is_wrong_with_a_file_is_told(tmp_path: Path, name: str, data: str | bytes, what: str) -> None:
    assert what in refusal(tmp_path, name, data)


@pytest.mark.parametrize("given", ["kinetics700", "/nowhere/labels.txt", "", "."])
def test_a_name_that_is_no_set_and_no_file_is_told(given: str) -> None:
    with pytest.raises(InputError, match=re.escape(repr(given))) as raised:
        read_labels(given)
    assert "kinetics400" in raised.value.hint


def test_a_file_called_like_a_published_set_is_read_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    written(tmp_path, "ucf101", "archery\n")
    assert (read_labels("ucf101").names, read_labels("ucf101").published) == (("archery",), None)


def test_a_background_is_a_text_on_each_line(tmp_path: Path) -> None:
    assert read_texts(Path(written(tmp_path, "b.txt", "an empty room\n\na wall\n"))) == ("an empty room", "a wall")
    with pytest.raises(InputError, match=r"b\.txt is empty"):
        read_texts(Path(written(tmp_path, "b.txt", "\n")))


@given(st.text(max_size=200))
def test_the_name_of_a_set_is_a_safe_folder(text: str) -> None:
    if re.search("[A-Za-z0-9]", text):
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,79}", set_name(text))
    else:
        with pytest.raises(InputError) as raised:
            set_name(text)
        assert "--set" in raised.value.hint


def test_the_digest_is_that_of_canonical_json_and_of_every_part() -> None:
    fields = {"b": ["é", 1], "a": {"mode": "multi", "logit_scale": 100.0}}
    expected = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    assert digest_of(fields) == hashlib.sha256(expected).hexdigest()
    assert digest_of(dict(reversed(fields.items()))) == digest_of(fields)
    assert digest_of({**fields, "b": ["e", 1]}) != digest_of(fields)


def test_clip_has_openai_s_28_prompts_for_kinetics_and_48_for_ucf101() -> None:
    spec = next(spec for spec in encoders.specs().values() if spec.family == "clip")
    kinetics, ucf = prompts_of(spec, "kinetics400"), prompts_of(spec, "ucf101")
    expected_28, expected_48 = set(), set()
    for kind in ("photo", "video", "example", "demonstration"):
        expected_28.add(f"a {kind} of {{}}.")
        for doing in (" ", " using ", " doing ", " during ", " performing ", " practicing "):
            expected_28.add(f"a {kind} of a person{doing}{{}}.")
            expected_48 |= {f"a {kind} of a person{doing}{{}}.", f"a {kind} of the person{doing}{{}}."}
    assert (len(kinetics.templates), set(kinetics.templates)) == (28, expected_28)
    assert (len(ucf.templates), set(ucf.templates)) == (48, expected_48)
    assert kinetics == prompts_of(spec, "kinetics600")
    assert kinetics.averaged == ucf.averaged == "vectors"


@pytest.mark.parametrize(
    ("family", "templates", "averaged"),
    [
        ("text4vis", {"a video of a person {}."}, "vectors"),
        ("xclip", {"{}"}, "vectors"),
        ("actionclip", 16, "probabilities"),
    ],
)
@pytest.mark.parametrize("label_set", [*LABEL_SETS, None])
def test_other_encoders_have_the_same_prompts_for_all_sets(
    family: str, templates: set[str] | int, averaged: str, label_set: str | None
) -> None:
    found = [prompts_of(spec, label_set) for spec in encoders.specs().values() if spec.family == family]
    assert found
    for prompts in found:
        assert prompts.averaged == averaged
        assert templates in (set(prompts.templates), len(set(prompts.templates)))
        assert all(template.count("{}") == 1 for template in prompts.templates)


def test_each_text_of_a_label_goes_into_each_template(tmp_path: Path) -> None:
    labels = read_labels(written(tmp_path, "a.csv", "label,synonyms\nRideBike,cycling\nsit {} down,\n"))
    spec = next(spec for spec in encoders.specs().values() if spec.family == "xclip")
    assert texts_of(labels, prompts_of(spec, None)) == [["ride bike", "cycling"], ["sit {} down"]]
