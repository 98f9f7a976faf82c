"""Sounds and images in directories become sequences with their labels; what is wrong is said with the file."""

import bz2
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import ray

from rayrnn.data.prepare import prepare
from rayrnn.data.sequences import gather, take
from rayrnn.data.sources import read
from rayrnn.data.vocabulary import BEGIN
from rayrnn.errors import DataError, RayrnnError, RecipeError, UsageError
from rayrnn.recipe import validate_recipe
from rayrnn.recipe.media_sections import AudioData, ImageData
from rayrnn.recipe.sources import OWN, check_installed
from tests.asked import needs
from tests.media import picture, sine, sound, write

GOOD = sound(sine(440, 0.1))
DIGIT = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10


def rows(data: AudioData | ImageData, task: str = "classification", **asked: Any) -> list[dict[str, Any]]:
    dataset = read(data, needs(task), **asked)
    return pa.concat_tables(ray.get(dataset.to_arrow_refs()), promote_options="default").to_pylist()


def fault(data: AudioData | ImageData, task: str = "classification", **asked: Any) -> str:
    with pytest.raises(RayrnnError) as told:
        gather(read(data, needs(task), **asked), needs(task))
    return str(told.value)


def labels(data: AudioData | ImageData, **asked: Any) -> dict[str, str]:
    return {row["key"]: row["label"] for row in rows(data, **asked)}


def audio(path: Path | str, **keys: Any) -> AudioData:
    return AudioData.model_validate({"path": str(path), "mels": 4} | keys)


def images(path: Path | str, **keys: Any) -> ImageData:
    return ImageData.model_validate({"path": str(path)} | keys)


def test_a_sound_is_a_sequence_and_a_frame_is_a_step(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"b.wav": GOOD, "a.flac": sound(sine(440, 0.2, 8_000), 8_000, "FLAC")})
    first, second = rows(audio(tmp_path, rate=8_000), labelled=False)
    assert [first["key"], second["key"]] == ["a.flac", "b.wav"]
    assert (len(first["values"]), len(second["values"]), len(first["values"][0])) == (21, 11, 4)
    table = gather(read(audio(tmp_path), needs("classification"), labelled=False), needs("regression", 1)).schema
    assert b"mel 3" in table.field("values").metadata[b"rayrnn.features"]


@pytest.mark.parametrize(
    ("keys", "due"),
    [
        ({}, DIGIT / 255),
        ({"as": "pixels"}, DIGIT.reshape(-1, 1) / 255),
        (
            {"as": "patches", "patch": 2},
            np.array([[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]]) * 10 / 255,
        ),
    ],
)
def test_an_image_is_a_sequence_of_rows_of_pixels_or_of_patches(
    ray_cluster: None, tmp_path: Path, keys: dict[str, Any], due: np.ndarray
) -> None:
    write(tmp_path, {"a.png": picture(DIGIT)})
    (row,) = rows(images(tmp_path, **keys), labelled=False)
    np.testing.assert_allclose(row["values"][: len(due)], due, atol=1e-6)


def test_a_pixel_is_a_symbol_and_a_language_model_has_one_before_every_row(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"a.png": picture(np.array([[0, 255, 128]], np.uint8)), "b.png": picture(DIGIT[:1, :3])})
    keys = {"as": "pixels", "levels": 3, "size": [1, 3]}
    first, second = rows(images(tmp_path, **keys), "language_model")
    assert first["symbols"] == [BEGIN, "0", "2", "1"]
    assert second["symbols"] == [BEGIN, "0", "0", "0"]
    assert rows(images(tmp_path, **keys), "classification", labelled=False)[0]["symbols"] == ["0", "2", "1"]
    colours = np.array([[[255, 0, 0]]], np.uint8)
    write(tmp_path / "colours", {"a.png": picture(colours)})
    keys = {"as": "pixels", "levels": 2, "size": [1, 1], "channels": "rgb"}
    assert rows(images(tmp_path / "colours", **keys), "language_model")[0]["symbols"] == [BEGIN, "1", "0", "0"]
    write(tmp_path / "rows", {"a.png": picture(np.array([[0, 255], [255, 0]], np.uint8))})
    keys = {"as": "pixels", "levels": 2, "size": [2, 2]}
    found = rows(images(tmp_path / "rows", **keys), "language_model")[0]["symbols"]
    assert found == [BEGIN, "0", "1", BEGIN, "1", "0"]


def test_a_directory_of_frames_is_a_sequence_in_the_natural_order_of_their_names(
    ray_cluster: None, tmp_path: Path
) -> None:
    frames = {
        f"{walk}/{number}.png": picture(np.full((2, 2), number, np.uint8)) for walk in "ab" for number in (10, 2, 1)
    }
    write(tmp_path, frames | {"labels.csv": "a,up\nb,down\n"})
    found = rows(images(tmp_path, frames=True, size=[2, 2], labels=str(tmp_path / "labels.csv")))
    assert [(row["key"], row["label"]) for row in found] == [("a", "up"), ("b", "down")]
    np.testing.assert_allclose(np.array(found[0]["values"]) * 255, np.repeat([[1], [2], [10]], 4, axis=1), atol=1e-4)
    assert labels(images(tmp_path, frames=True, size=[2, 2], label_pattern="([ab])")) == {"a": "a", "b": "b"}


def test_an_image_beside_the_clips_directories_is_told_of(ray_cluster: None, tmp_path: Path) -> None:
    clips = {f"clips/{clip}/0.png": picture(np.zeros((2, 2), np.uint8)) for clip in "ab"}
    write(tmp_path, clips)
    notes: list[str] = []
    data = images(tmp_path / "clips", frames=True, size=[2, 2])
    assert [row["key"] for row in rows(data, labelled=False, say=notes.append)] == ["a", "b"]
    assert notes == []
    write(tmp_path, {"clips/preview.png": picture(np.zeros((2, 2), np.uint8))})
    keys = [row["key"] for row in rows(data, labelled=False, say=notes.append)]
    assert keys == ["clips", "clips/a", "clips/b"]
    (note,) = notes
    assert note.startswith("clips is a sequence of its own, of ")
    assert "preview.png and what else lies beside the directory a" in note


@pytest.mark.parametrize("name", ["said.tsv", "said.tsv.bz2"])
def test_targets_behind_tabulators_have_no_quotes(ray_cluster: None, tmp_path: Path, name: str) -> None:
    lines = b'\na.wav\t"Yes", he said.\nb.wav\t"No"\n'
    content = bz2.compress(lines) if name.endswith(".bz2") else lines
    write(tmp_path, {"b.wav": GOOD, "a.wav": GOOD, name: content})
    found = rows(audio(tmp_path, targets=str(tmp_path / name)), "ctc")
    assert [row["target"] for row in found] == ['"Yes", he said.', '"No"']


def test_labels_stand_in_a_file_or_in_names(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"up/1_x.png": picture(DIGIT), "down/2_x.png": picture(DIGIT)})
    write(tmp_path, {"labels.csv": "name,label\n1_x.png,u\ndown/2_x,d\nnot there.png,u\n"})
    in_file = images(tmp_path, labels=str(tmp_path / "labels.csv"))
    assert labels(in_file) == {"down/2_x.png": "d", "up/1_x.png": "u"}
    by_directory = {"down/2_x.png": "down", "up/1_x.png": "up"}
    assert labels(images(tmp_path, label_pattern="^([^/]+)/")) == by_directory
    assert labels(images(f"{tmp_path}/*/*.png", label_pattern="^([^/]+)/")) == by_directory
    # the directory that is named counts, not the one that all files happen to lie in
    assert labels(images(f"{tmp_path}/up*/*.png", label_pattern="^([^/]+)/")) == {"1_x.png": "up"}
    assert [row["label"] for row in rows(images(tmp_path, label_pattern=r"(\d)_"), "regression")] == [[2.0], [1.0]]


def test_names_may_have_blanks_brackets_and_letters_of_any_language(ray_cluster: None, tmp_path: Path) -> None:
    names = ["a b.wav", "[1].wav", "größe.wav", "100%.wav", "it's.wav", "日本.wav"]
    write(tmp_path / "my [files] ä", dict.fromkeys(names, GOOD))
    lines = "".join(f"{name},{number % 2}\n" for number, name in enumerate(names))
    write(tmp_path, {"labels.csv": lines})
    found = labels(audio(tmp_path / "my [files] ä", labels=str(tmp_path / "labels.csv")))
    assert found == {name: str(number % 2) for number, name in enumerate(names)}


def test_what_systems_and_people_leave_between_images_is_left_out_and_people_are_told(
    ray_cluster: None, tmp_path: Path
) -> None:
    others = {"Thumbs.db": b"x", ".DS_Store": b"x", "desktop.ini": "x", "README.txt": "what this is"}
    write(tmp_path, {"a.PNG": picture(DIGIT), **others})
    notes: list[str] = []
    assert [row["key"] for row in rows(images(tmp_path), labelled=False, say=notes.append)] == ["a.PNG"]
    assert len(notes) == 1
    assert "README.txt: left out, for the names of images end in .png, .jpg" in notes[0]


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ({"a.wav": b""}, "a.wav is empty: it has 0 bytes"),
        ({"a.wav": GOOD, "b.wav": "no sound"}, "b.wav is no sound that can be read"),
        ({"a.wav": GOOD, "b.wav": GOOD[:1000]}, "b.wav has 956 of the 3,200 bytes of sound"),
        ({"Thumbs.db": b"x"}, "holds no sounds"),
        ({"a.wav.gz": b"\x1f\x8b nonsense"}, "a.wav.gz cannot be read"),
    ],
)
def test_a_sound_that_cannot_be_used_ends_the_run_with_its_name(
    ray_cluster: None, tmp_path: Path, files: dict[str, bytes | str], says: str
) -> None:
    write(tmp_path, files)
    assert says in fault(audio(tmp_path, label_pattern="(.)"))


@pytest.mark.parametrize(
    ("files", "keys", "says"),
    [
        ({"a.png": b""}, {}, "a.png is empty: it has 0 bytes"),
        ({"a.png": picture(DIGIT), "b.png": b""}, {}, "b.png is empty: it has 0 bytes"),
        ({"a.png": picture(DIGIT), "b.png": "a text"}, {}, "b.png is no image that can be read"),
        (
            {"a.png": picture(DIGIT), "b.png": picture(DIGIT.T)},
            {},
            "b.png has 6 x 4 pixels (height x width), and {place}/a.png has 4 x 6: set data.size, such as [4, 6]",
        ),
        ({"a.png": picture(DIGIT)}, {"as": "patches", "patch": 4}, "data.patch 4 does not divide into whole patches"),
    ],
)
def test_an_image_that_cannot_be_used_ends_the_run_with_its_name(
    ray_cluster: None, tmp_path: Path, files: dict[str, bytes | str], keys: dict[str, Any], says: str
) -> None:
    write(tmp_path, files)
    assert says.format(place=tmp_path) in fault(images(tmp_path, label_pattern="(.)", **keys))


def test_images_of_any_size_become_of_one(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"a.png": picture(DIGIT), "b.png": picture(DIGIT.T)})
    found = rows(images(tmp_path, size=[3, 5]), labelled=False)
    assert [np.array(row["values"]).shape for row in found] == [(3, 5), (3, 5)]


def test_with_on_error_skip_what_cannot_be_used_is_left_out_and_listed(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"0.png": "no image", "a.png": picture(DIGIT), "b.png": b"", "c.png": picture(DIGIT)})
    write(tmp_path, {"labels.csv": "a.png,x\nb.png,x\n"})
    found = gather(
        read(images(tmp_path, labels=str(tmp_path / "labels.csv"), on_error="skip"), needs("classification")),
        needs("classification"),
    )
    assert take(found, np.arange(len(found)))["key"].to_pylist() == ["a.png"]
    assert len(found.skipped) == 3
    assert any("c.png has no label: there is none for it in" in reason for reason in found.skipped)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("a.wav,up\n", "b.wav has no label: there is none for it in"),
        ("x.wav,up\n", "names none of the 2 sequences"),
        ("a.wav,up\na.wav,down\nb.wav,up\n", "labels.csv:2: a.wav has another label in line 1"),
        ("what,file\nup,a.wav\nup,b.wav\n", "labels.csv has the file names in its second column: put that one first"),
        ("a.wav,up,train\n", "labels.csv:1: 3 columns; each line is a file name and its label; leave the others out"),
        ("a.wav\n", "1 column; each line is a file name and its label"),
        ("a.wav;up\n", "its label; separate them with commas"),
        ("", "names none of the 2 sequences"),
        ("a.wav,\nb.wav,up\n", "labels.csv:1: the sequence has no label"),
    ],
)
def test_a_file_without_a_label_is_told(ray_cluster: None, tmp_path: Path, lines: str, says: str) -> None:
    write(tmp_path, {"a.wav": GOOD, "b.wav": GOOD, "labels.csv": lines})
    assert says in fault(audio(tmp_path, labels=str(tmp_path / "labels.csv")))


def test_a_name_in_which_the_pattern_is_not_found_has_no_label(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"1_a.wav": GOOD, "b.wav": GOOD})
    assert "b.wav has no label: there is none for it in data.label_pattern" in fault(
        audio(tmp_path, label_pattern=r"^(\d)_")
    )
    assert "is found in none of the 2 names below" in fault(audio(tmp_path, label_pattern="^(x)"))


def test_other_sequences_have_labels_of_their_own_or_none(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"train/a.wav": GOOD, "test/a.wav": GOOD, "train.csv": "a.wav,up\n", "test.csv": "a.wav,down\n"})
    data = audio(tmp_path / "train", labels=str(tmp_path / "train.csv"))
    test = str(tmp_path / "test")
    assert "labels of other sequences are never used" in fault(data, where=test)
    assert labels(data, where=test, labels=str(tmp_path / "test.csv")) == {"a.wav": "down"}
    held_out = {"held_out": test, "held_out_labels": str(tmp_path / "test.csv")}
    assert labels(data.model_copy(update=held_out), where=test) == {"a.wav": "down"}
    by_name = audio(tmp_path / "train", label_pattern="(.)")
    assert labels(by_name, where=test) == {"a.wav": "a"}
    with pytest.raises(UsageError, match=r"labels are given, y, .* they come from data\.label_pattern"):
        read(by_name, needs("classification"), where=test, labels="y")


def test_a_task_with_labels_is_told_where_they_may_stand(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"a.wav": GOOD})
    with pytest.raises(RecipeError, match=r"needs labels, .* give data\.labels, .* or data\.label_pattern"):
        read(audio(tmp_path), needs("classification"))
    with pytest.raises(RecipeError, match=r"tagging takes one label a step, and data\.source audio has one a sequence"):
        read(audio(tmp_path, label_pattern="(.)"), needs("tagging"))


@pytest.mark.parametrize(
    ("source", "keys", "says"),
    [
        ("images", {"as": "patches"}, "data.patch goes with data.as: patches"),
        ("images", {"patch": 4}, "data.patch goes with data.as: patches"),
        ("images", {"levels": 2}, "data.levels goes with data.as: pixels"),
        ("images", {"as": "pixels", "levels": 2}, "data.levels needs data.size"),
        ("images", {"as": "pixels", "frames": True}, "with data.frames every image is one step"),
        ("images", {"frames": True}, "data.frames needs data.size"),
        ("images", {"as": "patches", "patch": 3, "size": [6, 8]}, "data.patch 3 does not divide data.size [6, 8]"),
        ("images", {"as": "columns"}, 'recipe key "data.as"'),
        ("images", {"ass": "rows"}, 'recipe key "data.ass" is unknown; did you mean "as"?'),
        ("images", {"background": "pink"}, "due is white, black or #rrggbb"),
        ("images", {"size": [28]}, 'recipe key "data.size'),
        ("audio", {"rate": 100, "hop": 10}, "data.hop is 10 ms, less than 2 samples at data.rate 100"),
        ("audio", {"label_pattern": "("}, "it is no regular expression"),
        ("audio", {"label_pattern": "a"}, "it has 0 groups, and one is due"),
        ("audio", {"label_pattern": "(a)", "labels": "x"}, "give data.labels or data.label_pattern"),
        ("audio", {"held_out_labels": "x"}, "data.held_out_labels goes with data.labels"),
        ("audio", {"targets": "y", "held_out_targets": "x"}, "data.held_out_targets goes with a path in data.held_out"),
    ],
)
def test_keys_that_contradict_one_another_are_refused(source: str, keys: dict[str, Any], says: str) -> None:
    values = {"name": "x", "task": "classification", "data": {"source": source, "path": "x"} | keys}
    with pytest.raises(RecipeError) as told:
        validate_recipe(values)
    assert says in str(told.value)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"source": "audio"}, "data.source audio brings numbers, which a language model does not learn"),
        ({"source": "images"}, "data.source images without data.as: pixels and data.levels brings numbers"),
    ],
)
def test_a_language_model_needs_symbols(data: dict[str, Any], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        validate_recipe({"name": "x", "task": "language_model", "data": {"path": "x"} | data})


def test_a_recipe_is_stored_and_read_again(tmp_path: Path) -> None:
    recipe = validate_recipe(
        {"name": "x", "data": {"source": "images", "path": "x", "as": "pixels", "levels": 2, "size": [4, 6]}}
    )
    assert "as: pixels" in recipe.to_yaml()
    assert validate_recipe(recipe.model_dump(mode="json")) == recipe


@pytest.mark.parametrize(
    ("keys", "due"),
    [
        ({}, None),
        ({"as": "patches", "patch": 4, "channels": "rgb"}, (4, 4, 3)),
        ({"frames": True, "size": [8, 9]}, (8, 9, 1)),
    ],
)
def test_a_step_that_is_an_image_has_a_shape(keys: dict[str, Any], due: tuple[int, int, int] | None) -> None:
    assert images("x", **keys).step_shape == due


def test_of_images_in_the_order_of_their_names_the_held_out_ones_are_drawn(ray_cluster: None, tmp_path: Path) -> None:
    """By their names all sevens come last, and nobody would have learned any."""
    write(tmp_path, {f"{number:02d}.png": picture(DIGIT) for number in range(20)})
    data = {"source": "images", "path": str(tmp_path), "as": "pixels", "levels": 2, "size": [4, 6], "held_out": 0.2}
    recipe = validate_recipe({"name": "x", "task": "language_model", "data": data})
    held_out = prepare(recipe).held_out.indices.tolist()
    assert len(held_out) == 4
    assert held_out != [16, 17, 18, 19]


def test_rows_of_another_width_than_was_learned_are_told(ray_cluster: None, tmp_path: Path) -> None:
    write(tmp_path, {"a.png": picture(DIGIT)})
    data, asked = images(tmp_path), {"labelled": False}
    assert len(rows(data, **asked, num_columns=6)) == 1
    with pytest.raises(DataError, match="6 pixels, or 6 numbers, and the rows that were learned have 9"):
        read(data, needs("classification"), **asked, num_columns=9)


def test_labels_in_names_are_searched_below_each_directory_that_was_named(ray_cluster: None, tmp_path: Path) -> None:
    names = ["train/cat/1.png", "train/dog/2.png", "extra/dog/3.png"]
    write(tmp_path, dict.fromkeys(names, picture(DIGIT)))
    pattern = "^([^/]+)/"
    both = ImageData(path=(str(tmp_path / "train"), str(tmp_path / "extra")), label_pattern=pattern)
    assert list(labels(both).values()) == ["dog", "cat", "dog"]
    classes = ImageData(path=(str(tmp_path / "train/cat"), str(tmp_path / "train/dog")), label_pattern=pattern)
    assert list(labels(classes).values()) == ["cat", "dog"]


@pytest.mark.parametrize(
    ("source", "library"),
    [
        *(("audio", "soundfile"), ("images", "PIL"), ("delta", "deltalake"), ("iceberg", "pyiceberg")),
        *(("avro", "fastavro"), ("sql", "sqlalchemy")),
    ],
)
def test_without_its_extra_a_source_says_what_to_install(source: str, library: str) -> None:
    assert OWN[source].library == library
    absent = OWN[source]._replace(library="a_library_that_nobody_has")
    with pytest.raises(UsageError, match=rf"data.source {source} needs .* pip install 'rayrnn\[{source}\]'"):
        check_installed(absent, f"data.source {source}")
