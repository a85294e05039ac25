import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tiny_dataset

from attention_lab.data import prepared

ROWS = [
  {"text": f"line {n} ä", "label": n % 2, "number": n, "parts": [f"{n}a", f"{n}b"], "image": None} for n in range(9)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  root = tmp_path_factory.mktemp("prepared")
  features = {
    "text": tiny_dataset.TEXT,
    "label": tiny_dataset.LABEL,
    "number": np.int32,
    "parts": tfds.features.Sequence(tiny_dataset.TEXT),
    "image": tfds.features.Image(shape=(6, 5, 1)),
  }
  rows = [row | {"image": tiny_dataset.png(tiny_dataset.picture(row["number"]))} for row in ROWS]
  tiny_dataset.prepare(root, "mixed", features, {"train": rows[:6], "test": rows[6:]})
  builder = tiny_dataset.prepare(root, "other", {"text": tiny_dataset.TEXT}, {"train": [{"text": "x"}]})
  info = pathlib.Path(builder.data_dir, "dataset_info.json")
  info.write_text(info.read_text().replace("array_record", "tfrecord"))
  return str(root)


def test_columns_give_back_what_was_written_in_order(folder):
  columns = prepared.columns("mixed", "train", folder, ["text", "label", "number", "parts"])
  for name in ("text", "label", "number", "parts"):
    assert list(columns[name]) == [row[name] for row in ROWS[:6]]
  assert isinstance(columns["label"], np.ndarray)
  assert isinstance(columns["text"][0], str)


def test_images_come_as_the_bytes_that_were_kept(folder):
  encoded = prepared.columns("mixed", "test", folder, ["image"])["image"]
  assert encoded == [tiny_dataset.png(tiny_dataset.picture(number)) for number in (6, 7, 8)]


def test_a_dataset_tells_its_splits_its_features_and_its_classes(folder):
  assert prepared.splits("mixed", folder) == {"train": 6, "test": 3}
  kinds = {"image": "image", "label": "label", "number": "tensor", "parts": "sequence", "text": "text"}
  assert prepared.features("mixed", folder) == kinds
  assert prepared.class_names("mixed", folder, "label") == ["no", "yes"]
  assert prepared.image_shape("mixed", folder, "image") == (6, 5, 1)
  assert prepared.only("mixed", folder, "text") == "text"


def test_a_split_is_read_by_index_in_any_order_and_a_part_of_it_by_tfds_own_notation(folder):
  records = prepared.open_split("mixed", "train[2:5]", folder)
  assert len(records) == 3
  assert [example["number"] for example in records.__getitems__([2, 0])] == [4, 2]
  assert records[1]["text"].decode() == "line 3 ä"
  with pytest.raises(IndexError, match="3 examples, none of number 3"):
    records[3]


def test_reading_never_imports_tensorflow(folder, tmp_path):
  (tmp_path / "tensorflow.py").write_text("raise SystemExit('tensorflow was imported')")
  code = (
    f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
    "from attention_lab.data import images, prepared\n"
    "from attention_lab.config import DataConfig\n"
    f"assert len(prepared.columns('mixed', 'train', {folder!r}, ['text'])['text']) == 6\n"
    f"assert len(images.load(DataConfig(name='mixed', dir={folder!r})).splits['test']) == 3\n"
    "assert 'tensorflow' not in sys.modules and 'jax' not in sys.modules"
  )
  subprocess.run([sys.executable, "-c", code], check=True)


REFUSED = {
  "missing": (
    ("mixt", "train"),
    r"name=mixt is not prepared in .*did you mean 'mixed'\? \(mixed, other are there\).*dir",
  ),
  "command": (("zzz", "train"), r"python -m attention_lab\.data\.builders --name=zzz --dir="),
  "no name": (("a b", "train"), "name=a b names no dataset"),
  "split": (("mixed", "validation"), "name=mixed has no split validation; it has train, test"),
  "part": (("mixed", "train[x]"), r"split train\[x\] in .*mixed/1\.0\.0 cannot be opened"),
  "format": (("other", "train"), "name=other is prepared as tfrecord .*file_format=array_record"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_there_is_refused_in_one_line_that_names_the_flag(folder, case):
  arguments, message = REFUSED[case]
  with pytest.raises(ValueError, match=message) as caught:
    prepared.open_split(*arguments, folder)
  assert "--config.data.name" in str(caught.value)
  assert "\n" not in str(caught.value)


def test_a_feature_that_is_not_there_or_not_the_only_one_of_its_kind_is_refused(folder):
  with pytest.raises(ValueError, match="no feature lable, did you mean 'label'"):
    prepared.columns("mixed", "train", folder, ["lable"])
  with pytest.raises(ValueError, match=r"has 0 features of kind audio, not one; it has image \(image\), label"):
    prepared.only("mixed", folder, "audio")


def test_names_that_were_meant_are_offered_beside_those_that_are_prepared(folder):
  prepared.check("mixed", folder)
  with pytest.raises(ValueError, match="did you mean 'digits'"):
    prepared.check("digit", folder, ["digits"])


def cut(content):
  return content[: len(content) // 2]


def flipped(content):
  return content[:900] + bytes(byte ^ 255 for byte in content[900:1300]) + content[1300:]


@pytest.mark.parametrize("damage", [cut, flipped, lambda content: b"", None], ids=["cut", "flipped", "empty", "gone"])
def test_a_record_file_that_is_missing_or_corrupt_is_named(tmp_path, damage):
  rng = np.random.default_rng(0)
  rows = [{"text": bytes(rng.integers(97, 123, 500, np.uint8))} for _ in range(40)]
  tiny_dataset.prepare(tmp_path, "worn", {"text": tiny_dataset.TEXT}, {"train": rows})
  (file,) = tmp_path.rglob("*array_record*")
  if damage is None:
    file.unlink()
  else:
    file.write_bytes(damage(file.read_bytes()))
  with pytest.raises(
    ValueError, match=r"--config\.data\.name=worn: .*worn-train\.array_record-\S+ is missing or corrupt"
  ):
    prepared.columns("worn", "train", str(tmp_path), ["text"])


@pytest.mark.parametrize("file", ["features.json", "dataset_info.json"])
def test_a_description_that_cannot_be_read_is_told_apart_from_a_dataset_that_is_not_there(tmp_path, file):
  builder = tiny_dataset.prepare(tmp_path, "worn", {"text": tiny_dataset.TEXT}, {"train": [{"text": "x"}]})
  pathlib.Path(builder.data_dir, file).write_text("worn")
  with pytest.raises(ValueError, match=r"--config\.data\.name=worn in --config\.data\.dir=.* cannot be read \("):
    prepared.splits("worn", str(tmp_path))


def test_a_text_that_is_no_utf8_is_named(tmp_path):
  tiny_dataset.prepare(tmp_path, "worn", {"text": tiny_dataset.TEXT}, {"train": [{"text": "x"}, {"text": b"\xff"}]})
  with pytest.raises(ValueError, match="name=worn: text of example 1 of train is no text"):
    prepared.columns("worn", "train", str(tmp_path), ["text"])


def test_a_long_read_tells_how_far_it_is(monkeypatch):
  monkeypatch.setattr(prepared, "PATIENCE", -1.0)
  lines = []
  assert list(prepared.with_progress(range(4), "read", 4, lines.append)) == [0, 1, 2, 3]
  assert lines == ["read 0 %", "read 25 %", "read 50 %", "read 75 %"]


def test_a_known_name_that_is_not_prepared_is_not_offered_for_itself(tmp_path):
  with pytest.raises(ValueError, match=r"squad is not prepared in \S+ \(nothing is there\)"):
    prepared.check("squad", str(tmp_path), ("babi", "squad"))
