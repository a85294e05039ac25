"""Files and folders that cannot be used cost one line on standard error, and nothing in them changes."""

import shutil

import binary_process
import numpy as np
import pytest
from PIL import Image

TINY = ["--config.model.width=16", "--config.model.layers=1", "--config.batch=8", "--config.data.path=text.txt"]
RUN = [
  *TINY,
  "--config.steps=1",
  "--config.data.length=16",
  "--config.data.tokenizer=byte",
  "--config.data.vocabulary=0",
]
ROWS = "".join(f"text {number} of all,{number % 2}\n" for number in range(40))
TABLES = {
  "empty.csv": "",
  "header.csv": "text,label\n",
  "one_class.csv": "text,label\n" + "".join(f"text {number},no\n" for number in range(40)),
  "no_label.csv": f"body;mood\n{ROWS.replace(',', ';')}",
  "doubled.csv": "text,label,text\none,no,two\n",
  "unlabelled.csv": f"text,label\n{ROWS}without,\n",
  "broken.jsonl": '{"text": "one", "label": 1}\n{"text": \n',
  "surrogate.jsonl": '{"text": "one", "label": 1}\n{"text": "\\ud800", "label": 0}\n',
  "utf16.csv": f"text,label\n{ROWS}".encode("utf-16"),
  "sheet.csv": b"PK\x03\x04",
  "empty.txt": "",
  "utf16.txt": "text\n".encode("utf-16"),
  "noise.txt": b"text \xff\xfe text\n" * 500,
  "records.tfrecord": b"\x10\0\0\0\0\0\0\0\xd2\x04\x96\x49" * 20,
  "records.arrow": b"ARROW1\0\0" + b"\xff" * 100,
}
TEXT, LABELLED, IMAGES = "language_modeling", "text_classification", "image_classification"

FILES = {  # binary, --config.data.path, what the message says
  "a missing text": (TEXT, "no/such.txt", "no/such.txt: No such file or directory); give a file or folder"),
  "an empty text": (TEXT, "empty.txt", "--config.data.path=empty.txt holds no text"),
  "a text in UTF-16": (TEXT, "utf16.txt", "utf16.txt is UTF-16, not UTF-8 text; convert it: iconv"),
  "bytes that are no UTF-8": (TEXT, "noise.txt", "noise.txt is not UTF-8 at byte 5; convert it"),
  "a folder without text": (TEXT, "nothing", "--config.data.path=nothing holds no text"),
  "TFRecord for text": (TEXT, "records.tfrecord", "records.tfrecord is not UTF-8 at byte 8"),
  "Arrow for text": (TEXT, "records.arrow", "records.arrow is Arrow, not UTF-8 text; export it"),
  "no text to mask": ("masked_language_modeling", "empty.txt", "empty.txt holds no text"),
  "text for a table": (LABELLED, "text.txt", "text.txt is no table of texts; give a file of .csv, .tsv, .jsonl"),
  "a folder without tables": (LABELLED, "nothing", "nothing has no file train with one of .csv"),
  "an empty table": (LABELLED, "empty.csv", "empty.csv is empty; give it rows"),
  "a table without rows": (LABELLED, "header.csv", "header.csv has no rows below its header"),
  "a table of one class": (LABELLED, "one_class.csv", "one_class.csv has 1 classes in train; give texts of two"),
  "a table without its columns": (LABELLED, "no_label.csv", "no column of no_label.csv; choices: body, mood"),
  "a column that is there twice": (LABELLED, "doubled.csv", "2 columns named text; rename all but one"),
  "a row without a label": (LABELLED, "unlabelled.csv", "unlabelled.csv, line 42 has no label"),
  "a line that is no JSON": (LABELLED, "broken.jsonl", "broken.jsonl, line 2 is not JSON"),
  "half a character": (LABELLED, "surrogate.jsonl", "surrogate.jsonl, line 2 has half a character"),
  "a table in UTF-16": (LABELLED, "utf16.csv", "utf16.csv is UTF-16"),
  "a spreadsheet": (LABELLED, "sheet.csv", "sheet.csv is a ZIP archive or a spreadsheet, not UTF-8 text"),
  "images of mixed sizes": (IMAGES, "mixed", "mixed/cats/0.png is 8x8 and mixed/dogs/0.png is 9x8; resize them"),
  "an image of no bytes": (IMAGES, "worn", "worn/dogs/1.png cannot be decoded"),
  "images of one class": (IMAGES, "single", "--config.data.path=single has 1 class folders"),
  "images without classes": (IMAGES, "single/cats", "single/cats has 0 class folders with images (.png"),
  "a file for a folder": (IMAGES, "text.txt", "text.txt: Not a directory); give a folder of class folders"),
}
SAME = ["language_modeling", *RUN]
FOLDERS = {  # binary with its arguments, what the message says
  "a dataset that is not there": ([TEXT, "--config.data.name=wikitxt2", "--config.data.dir=nothing"], "'wikitext2'"),
  "a file for the folder of datasets": (
    ["question_answering", "--config.data.dir=text.txt"],
    "babi is not prepared in",
  ),
  "a file for a workdir": (
    [*SAME, "--workdir=text.txt"],
    "--workdir=text.txt is a file; give a folder",
  ),
  "a workdir below a file": ([*SAME, "--workdir=text.txt/run"], "--workdir=text.txt/run cannot be written ("),
  "a workdir that cannot be made": ([*SAME, "--workdir=/proc/run"], "--workdir=/proc/run cannot be written (/proc: "),
  "another task's workdir": (["recall", "--workdir=run"], 'experiment is "language_modeling" there'),
  "another model's workdir": ([*SAME, "--workdir=run", "--config.model.width=32"], "width is 16 there and 32 here"),
  "a comparison's workdir": ([*SAME, "--workdir=table"], "--workdir=table holds a comparison; give another folder"),
  "a configuration cut short": (["evaluate", "--workdir=cut"], "cut/config.json is not JSON"),
  "a configuration that is a list": (["evaluate", "--workdir=list"], "list/config.json is not the record of a run"),
  "a run without its configuration": ([*SAME, "--workdir=bare"], "--workdir=bare holds a run without its config.json"),
  "a file for a run": (["evaluate", "--workdir=text.txt"], "--workdir=text.txt has no config.json"),
  "broken metrics of a run to go on": (
    [*SAME, "--workdir=metrics"],
    "metrics.jsonl: line 1 is no row of a run; mend it",
  ),
  "broken metrics of a report": (["report", "--workdir=metrics"], "metrics.jsonl: line 1 is no row of a run; mend it"),
  "broken results": ([*SAME, "--workdir=final"], "final/final.json is not JSON"),
  "a broken tokenizer": (["generate", "--workdir=tokens"], "tokens/tokenizer.json is not a tokenizer"),
  "a missing tokenizer": (["generate", "--workdir=untokened"], "--workdir=untokened has no tokenizer.json"),
  "a run of foreign code": (["evaluate", "--workdir=foreign"], "allow it by --trust=mine"),
  "a split that is none": (["evaluate", "--workdir=run", "--split=tset"], "--split=tset is not a split of"),
  "another batch for a run": (["evaluate", "--workdir=run", "--config.batch=2"], "only --config.mesh.* may differ"),
  "a prompt too long": (["generate", "--workdir=run", f"--prompt={'a' * 20}"], "prompt 0 has 20 tokens"),
  "tokens beyond the positions": (
    ["generate", "--workdir=run", "--tokens=16"],
    "the 16 tokens that the model was built",
  ),
  "no run to begin with": (
    [LABELLED, "--config.pretrained=nowhere", "--config.data.path=unlabelled.csv"],
    "--config.pretrained=nowhere has no config.json",
  ),
  "a comparison in a run's folder": (
    ["compare", "--task=recall", "--workdir=run"],
    "--workdir=run holds a training run",
  ),
  "a broken grid": (["compare", "--task=recall", "--workdir=table"], "table/grid.jsonl: line 1 is no cell of a grid"),
  "broken rows of a benchmark": (["report", "--workdir=rows"], "rows/rows.jsonl: line 1 is no row; mend it"),
  "a report of nothing": (["report", "--workdir=nothing"], "--workdir=nothing holds no run: give the folder of"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A folder with every bad file, and a finished run of one step with its damaged copies."""
  root = tmp_path_factory.mktemp("bad")
  for name, content in TABLES.items():
    (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
  (root / "text.txt").write_text("".join(f"The quick brown fox jumps over dog {number}.\n" for number in range(100)))
  (root / "nothing").mkdir()
  _make_images(root)
  finished = binary_process.run("language_modeling", [*RUN, "--workdir=run"], root)
  assert (finished.returncode, finished.stderr) == (0, "")
  _make_runs(root)
  return root


def _make_images(root):
  for name, kind, size in [("mixed", "cats", (8, 8)), ("mixed", "dogs", (8, 9)), ("single", "cats", (8, 8))]:
    (root / name / kind).mkdir(parents=True)
    Image.fromarray(np.zeros(size, np.uint8)).save(root / name / kind / "0.png")
  for kind in ("cats", "dogs"):
    (root / "worn" / kind).mkdir(parents=True)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(root / "worn" / kind / "0.png")
  (root / "worn" / "dogs" / "1.png").write_bytes(b"")


def _make_runs(root):
  def copied(name, file, content=None):
    shutil.copytree(root / "run", root / name)
    path = root / name / file
    path.unlink() if content is None else path.write_text(content)

  config = (root / "run" / "config.json").read_text()
  copied("cut", "config.json", config[:100])
  copied("list", "config.json", "[]")
  copied("bare", "config.json")
  copied("final", "final.json", "[{")
  copied("tokens", "tokenizer.json", "{}")
  copied("untokened", "tokenizer.json")
  copied("foreign", "config.json", config.replace('"attention": "softmax"', '"attention": "mine:Mine()"'))
  copied("metrics", "metrics.jsonl", "nonsense\n" + (root / "run" / "metrics.jsonl").read_text())
  copied("broken", "final.json")
  (root / "metrics" / "final.json").unlink()
  for path in (root / "broken" / "checkpoints").rglob("*"):
    if path.is_file():
      path.write_text("worn")
  for name, file in (("table", "grid.jsonl"), ("rows", "rows.jsonl")):
    (root / name).mkdir()
    (root / name / file).write_text('{"task": "recall"\n')


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_cannot_be_used_is_named_in_one_line(name, folder):
  binary, path, message = FILES[name]
  binary_process.check_refused(binary, [f"--config.data.path={path}"], message, folder)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_that_cannot_be_used_is_named_in_one_line_and_stays_as_it_was(name, folder):
  (binary, *arguments), message = FOLDERS[name]
  binary_process.check_refused(binary, arguments, message, folder)


def test_a_run_whose_checkpoints_are_all_broken_is_named_in_one_line_with_a_code_of_its_own(folder):
  for binary, arguments in (("evaluate", []), ("language_modeling", RUN)):
    message = "no checkpoint of --workdir=broken can be restored"
    binary_process.check_refused(binary, [*arguments, "--workdir=broken"], message, folder, code=4)
