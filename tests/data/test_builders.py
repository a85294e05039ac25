import hashlib
import io
import subprocess
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds
import tiny_dataset

from attention_lab.data import builders, image_files, prepared
from attention_lab.data.builders import babi, published, wikitext2
from attention_lab.data.corpora import TEXTS
from attention_lab.data.images import IMAGES
from attention_lab.data.labelled_sources import SETS
from attention_lab.tasks.question_answering import NAMES

LINES = {"train": [" ", " = A title = ", " one two <unk> "], "valid": [" three "], "test": [" four ", " "]}
STORY = """1 Ann went home.
2 Bob went out.
3 Where is Ann? \thome\t1
4 Ann went out.
5 Who is out? \tBob,Ann\t2 4
1 Eve sleeps.
2 Where is Eve? \tbed\t1
"""


def file(url, content, *aliases):
  return published.File(url, len(content), hashlib.sha256(content).hexdigest(), aliases)


@pytest.fixture
def tiny_wikitext(monkeypatch, tmp_path):
  """The builder, told that other files were published; they lie under `tmp_path` by their names there."""
  tfds.disable_progress_bar()
  files = []
  for number, (stem, lines) in enumerate(LINES.items()):
    content = "".join(f"{line}\n" for line in lines).encode()
    name = f"wiki.{stem}.tokens" if number else f"{stem}.txt"
    (tmp_path / "deep").mkdir(exist_ok=True)
    (tmp_path / "deep" / name).write_bytes(content)
    files.append(file(f"https://nowhere.invalid/{stem}.txt", content, f"wiki.{stem}.tokens"))
  for name, value in {"FILES": files, "TRAIN": files[0], "VALIDATION": files[1], "TEST": files[2]}.items():
    monkeypatch.setattr(wikitext2, name, value)
  monkeypatch.setattr(wikitext2.Wikitext2, "url_infos", published.url_infos(files))
  return tmp_path / "deep"


def test_wikitext2_is_prepared_from_files_that_are_here_line_by_line(tiny_wikitext, tmp_path):
  counts = builders.prepare("wikitext2", str(tmp_path / "out"), str(tmp_path))
  assert counts == {"train": 3, "validation": 1, "test": 2}
  for split, stem in {"train": "train", "validation": "valid", "test": "test"}.items():
    assert prepared.columns("wikitext2", split, str(tmp_path / "out"), ["text"])["text"] == LINES[stem]


def test_a_file_with_another_digest_is_refused_and_the_expected_one_named(tiny_wikitext, tmp_path):
  (tiny_wikitext / "wiki.valid.tokens").write_text(" thrEe \n")
  expected = wikitext2.VALIDATION.sha256
  with pytest.raises(ValueError, match=rf"--from=.*wiki\.valid\.tokens has SHA-256 \w+, .*must be {expected}"):
    builders.prepare("wikitext2", str(tmp_path / "out"), str(tmp_path))
  assert not (tmp_path / "out").exists()


def test_a_missing_file_is_named_with_its_digest_and_address(tiny_wikitext, tmp_path):
  (tiny_wikitext / "wiki.test.tokens").unlink()
  message = rf"has no test\.txt or wiki\.test\.tokens; its SHA-256 must be {wikitext2.TEST.sha256}; .*https://"
  with pytest.raises(ValueError, match=message):
    builders.prepare("wikitext2", str(tmp_path / "out"), str(tmp_path))


def test_of_several_files_of_one_name_the_one_with_the_digest_is_taken(tiny_wikitext, tmp_path):
  (tmp_path / "another").mkdir()
  (tmp_path / "another" / "train.txt").write_text("something else")
  assert published.find(wikitext2.FILES, str(tmp_path))[wikitext2.TRAIN] == tiny_wikitext / "train.txt"


def test_babi_answers_rest_on_sentences_counted_without_the_questions():
  assert list(babi.questions(STORY)) == [
    {"story": ["Ann went home.", "Bob went out."], "question": "Where is Ann?", "answer": "home", "support": [0]},
    {
      "story": ["Ann went home.", "Bob went out.", "Ann went out."],
      "question": "Who is out?",
      "answer": "Bob,Ann",
      "support": [1, 2],
    },
    {"story": ["Eve sleeps."], "question": "Where is Eve?", "answer": "bed", "support": [0]},
  ]


def test_babi_is_prepared_task_by_task(monkeypatch, tmp_path):
  tfds.disable_progress_bar()
  contents = {(task, split): STORY.replace("Ann", f"Ann{task}{split}") for task in (1, 2) for split in babi.SPLITS}
  files = []
  for (task, split), text in contents.items():
    name = f"qa{task}_some_{split}.txt"
    (tmp_path / name).write_text(text)
    files.append(file(f"https://nowhere.invalid/{name}", text.encode()))
  monkeypatch.setattr(babi, "FILES", tuple(files))
  monkeypatch.setattr(babi.Babi, "url_infos", published.url_infos(files))
  assert builders.prepare("babi", str(tmp_path / "out"), str(tmp_path)) == {"train": 6, "test": 6}
  columns = prepared.columns("babi", "test", str(tmp_path / "out"), ["task", "story", "question", "answer", "support"])
  assert list(columns["task"]) == [1, 1, 1, 2, 2, 2]
  assert columns["question"][2:5] == ["Where is Eve?", "Where is Ann2test?", "Who is out?"]
  assert columns["support"] == [[0], [1, 2], [0]] * 2
  assert columns["story"][3] == ["Ann2test went home.", "Bob went out."]


def test_a_builder_of_tfds_that_reads_files_and_encodes_images_prepares_without_tensorflow(tmp_path):
  from tensorflow_datasets.core.utils.lazy_imports_utils import tensorflow as tf

  (tmp_path / "text.txt").write_text("told")
  pixels = [tiny_dataset.picture(0), tiny_dataset.picture(1)]

  def rows():
    with tf.io.gfile.GFile(str(tmp_path / "text.txt")) as stream:
      text = stream.read()
    yield from ({"image": array, "text": text} for array in pixels)

  features = {"image": tfds.features.Image(shape=(6, 5, 1), encoding_format="png"), "text": tiny_dataset.TEXT}
  with builders.substitute_tensorflow():
    tiny_dataset.prepare(tmp_path, "drawn", features, {"train": rows()})
  columns = prepared.columns("drawn", "train", str(tmp_path), ["image", "text"])
  assert columns["text"] == ["told", "told"]
  for encoded, array in zip(columns["image"], pixels, strict=True):
    np.testing.assert_array_equal(image_files.decode(io.BytesIO(encoded)), array[..., 0])


def test_the_published_files_are_all_there_with_their_digests():
  assert [file.name for file in wikitext2.FILES] == ["train.txt", "valid.txt", "test.txt"]
  assert len(babi.FILES) == 40
  assert sum(file.size for file in babi.FILES) == 5_897_887
  for files in (babi.FILES, wikitext2.FILES):
    assert len({file.url for file in files}) == len({file.sha256 for file in files}) == len(files)
    assert all(len(file.sha256) == 64 and file.url.startswith("https://") for file in files)


@pytest.mark.parametrize("name", sorted({*SETS, *TEXTS, *IMAGES, *NAMES} - {"python_docs", "digits"}))
def test_every_dataset_that_a_task_offers_has_a_builder_of_that_very_name(tmp_path, monkeypatch, name):
  asked = []
  monkeypatch.setattr(builders, "_prepare", lambda builder, folder: asked.append(builder.info.full_name) or {})
  builders.prepare(name, str(tmp_path))
  assert asked[0].startswith(f"{'glue/' * (name == 'sst2')}{name}/")


def test_files_that_are_not_in_the_folder_are_named_and_not_downloaded(tmp_path):
  with pytest.raises(
    ValueError, match=rf"--from={tmp_path} has no SST-2\.zip; its SHA-256 must be \w{{64}}; .*https://"
  ):
    builders.prepare("sst2", str(tmp_path / "out"), str(tmp_path))


REFUSED = {
  "no name": ((), "--name is not given; give babi, wikitext2"),
  "unknown": (("--name=wikitext",), "--name=wikitext is no dataset, did you mean 'wikitext2'?"),
  "no folder": (("--name=babi", "--from=/nowhere/at/all"), "--from=/nowhere/at/all is no folder"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_the_command_refuses_in_one_line_with_exit_code_2(tmp_path, case):
  flags, message = REFUSED[case]
  command = [sys.executable, "-m", "attention_lab.data.builders", f"--dir={tmp_path}", *flags]
  done = subprocess.run(command, capture_output=True, text=True, check=False)
  assert done.returncode == 2
  assert message in done.stderr
  assert "Traceback" not in done.stderr
