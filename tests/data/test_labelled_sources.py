import csv

import numpy as np
import pytest

from attention_lab.config import DataConfig
from attention_lab.data import labelled_sources
from attention_lab.data.labelled_sources import longest_containing, read_labelled, read_tables

ROWS = "".join(f"text {i} of all,{['no', 'yes'][i % 2]}\n" for i in range(40))


def write(folder, name, text):
  path = folder / name
  path.write_bytes(text if isinstance(text, bytes) else text.encode())
  return str(path)


def test_the_three_formats_hold_the_same_rows(tmp_path):
  csv = read_tables(write(tmp_path, "a.csv", '\ufefftext,label\r\n"one, ""two""\nlines",yes\r\n\r\nthree,no\r\n'))
  assert csv[""].texts == ['one, "two"\nlines', "three"]
  tsv = read_tables(write(tmp_path, "a.tsv", 'label\tsentence\nyes\t"one, two\nno\tthree\n'))
  assert tsv[""].texts == ['"one, two', "three"]
  lines = read_tables(
    write(tmp_path, "a.jsonl", '{"text": "one", "label": "yes"}\n\n{"label": "no", "text": "a\\u2028b"}\n')
  )
  assert lines[""].texts == ["one", "a\u2028b"]
  assert csv[""].labels == tsv[""].labels == lines[""].labels == ["yes", "no"]


@pytest.mark.parametrize(
  "name, delimiter", [("a.csv", ","), ("a.csv", ";"), ("a.csv", "\t"), ("a.tsv", "\t"), ("a.tsv", "|")]
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("quoting", [csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
def test_a_table_that_pythons_csv_wrote_is_read_as_it_was_written(tmp_path, name, delimiter, end, quoting):
  texts = ['he said "no"', "two\nlines", "a; b, c", "plain", ""]
  with (tmp_path / name).open("w", newline="", encoding="utf-8-sig") as stream:
    writer = csv.writer(stream, delimiter=delimiter, lineterminator=end, quoting=quoting)
    writer.writerows([["text", "label"], *([text, "yes"] for text in texts)])
  assert read_tables(str(tmp_path / name))[""].texts == texts


def test_quotes_of_a_tsv_that_no_csv_writer_wrote_are_characters(tmp_path):
  rows = ['"whole"\tno', '"begun\tno', 'ended"\tyes', 'in "the" middle\tno']
  path = write(tmp_path, "a.tsv", "text\tlabel\n" + "\n".join(rows) + "\n")
  assert read_tables(path)[""].texts == [row.partition("\t")[0] for row in rows]
  two = write(tmp_path, "b.tsv", 'text\tlabel\n"begun\tno\nended"\tyes\n')
  assert read_tables(two)[""].texts == ['"begun', 'ended"']


def test_columns_are_taken_by_name(tmp_path):
  path = write(tmp_path, "a.csv", "body,mood,text\nwords,3,other\n")
  assert read_tables(path, "body", "mood")[""].texts == ["words"]
  with pytest.raises(
    ValueError, match=r"text_column=bdy is no column of .*a\.csv, did you mean 'body'\?; choices: body"
  ):
    read_tables(path, "bdy", "mood")
  with pytest.raises(ValueError, match=r"label_column is not given, and label is no column of .*; choices: body, mood"):
    read_tables(path)


def test_one_file_is_cut_by_content_and_numbers_are_ordered_as_numbers(tmp_path):
  rows = "".join(f"text {i} of all,{[10, 9, -1][i % 3]}\n" for i in range(90))
  labelled = read_labelled(DataConfig(path=write(tmp_path, "a.csv", f"text,label\n{rows}")))
  assert labelled.classes == ["-1", "9", "10"]
  assert {split: len(part.texts) for split, part in labelled.splits.items()} == {
    "train": 72,
    "validation": 9,
    "test": 9,
  }
  again = "".join(reversed(rows.splitlines(keepends=True)))
  other = read_labelled(DataConfig(path=write(tmp_path, "b.csv", f"text,label\n{again}")))
  for split, part in labelled.splits.items():
    assert set(part.texts) == set(other.splits[split].texts)


def test_a_folder_gives_its_splits_and_train_what_is_missing(tmp_path):
  write(tmp_path, "train.csv", f"text,label\n{ROWS}")
  write(tmp_path, "test.tsv", "text\tlabel\nnew\tno\n")
  write(tmp_path, "notes.csv", "anything")
  labelled = read_labelled(DataConfig(path=str(tmp_path)))
  assert labelled.splits["test"].texts == ["new"]
  assert {split: len(part.texts) for split, part in labelled.splits.items()} == {
    "train": 36,
    "validation": 4,
    "test": 1,
  }
  assert labelled.origin["validation"] == "a tenth of train, by content"


def test_labels_that_train_does_not_have_are_refused(tmp_path):
  write(tmp_path, "train.csv", f"text,label\n{ROWS}")
  write(tmp_path, "test.csv", "text,label\nnew,maybe\n")
  with pytest.raises(ValueError, match="label maybe of test is not in train"):
    read_labelled(DataConfig(path=str(tmp_path)))


def test_fewer_than_two_classes_or_too_few_texts_are_refused(tmp_path):
  with pytest.raises(ValueError, match=r"one\.csv has 1 classes in train; give texts of two or more"):
    read_labelled(DataConfig(path=write(tmp_path, "one.csv", "text,label\n" + "".join(f"{i},no\n" for i in range(20)))))
  with pytest.raises(ValueError, match=r"few\.csv: the (validation|test) split is empty"):
    read_labelled(DataConfig(path=write(tmp_path, "few.csv", "text,label\na,no\nb,yes\n")))


@pytest.mark.parametrize(
  "name, content, message",
  [
    ("a.csv", "text,label\none,yes\ntwo,\n", "line 3 has no label in label"),
    ("a.csv", "text,label\none,yes\ntwo\n", "line 3 has 1 fields, but the header has 2"),
    ("a.csv", 'text,label\n"one,yes\n', "line 2 cannot be read"),
    ("a.csv", "text,label\n", "has no rows below its header"),
    ("a.csv", "", "is empty"),
    ("a.csv", b"text,label\n\xff\xfe,yes\n", "is not UTF-8 at byte 11"),
    (
      "a.csv",
      "text,label\none,yes\n".encode("utf-16"),
      "is UTF-16, not UTF-8 text; convert it: iconv -f UTF-16 -t UTF-8",
    ),
    ("a.csv", b"PK\x03\x04 ", "is a ZIP archive or a spreadsheet"),
    ("a.csv", "text,label,text\none,yes,two\n", "has 2 columns named text; rename all but one"),
    ("a.jsonl", '{"text": "b \\ud83d", "label": 1}\n', r"line 1 has half a character, as in \\ud800"),
    ("a.jsonl", '{"text": "one", "label": 1}\n{"text": "two"}\n', "line 2 has no label in label"),
    ("a.jsonl", '{"text": "one", "label": 1}\n{"text": "two", "label": 0.5}\n', "line 2 has a float as label"),
    ("a.jsonl", '{"text": 3, "label": 1}\n', "line 1 has no text in text"),
    ("a.jsonl", '{"text": "one", "label": 1}\n{"text": \n', "line 2 is not JSON"),
    ("a.jsonl", "[1, 2]\n", "line 1 is no JSON object"),
    ("a.txt", "text", r"is no table of texts; give a file of \.csv, \.tsv, \.jsonl"),
  ],
)
def test_a_file_that_cannot_be_read_is_refused_by_line(tmp_path, name, content, message):
  with pytest.raises(ValueError, match=rf"--config\.data\.path.*{message}") as caught:
    read_tables(write(tmp_path, name, content))
  assert "\n" not in str(caught.value)


def test_a_folder_without_train_or_with_two_of_a_split_is_refused(tmp_path):
  with pytest.raises(ValueError, match=r"--config\.data\.path=.*nowhere\.csv cannot be read .*No such file"):
    read_tables(str(tmp_path / "nowhere.csv"))
  write(tmp_path, "test.csv", "text,label\na,b\n")
  with pytest.raises(ValueError, match="has no file train"):
    read_tables(str(tmp_path))
  write(tmp_path, "test.tsv", "text\tlabel\na\tb\n")
  with pytest.raises(ValueError, match=r"has both test\.csv and test\.tsv"):
    read_tables(str(tmp_path))


def test_a_phrase_belongs_to_the_longest_text_that_has_its_words_in_a_row():
  texts = ["a very good film", "good film", "film", "a film", "very good", "good  film ", "another one"]
  first, other = "a very good film", "another one"
  assert longest_containing(texts) == [first, first, first, "a film", first, first, other]


def test_a_sentence_and_its_phrases_stay_in_one_split():
  sentences = [f"w{i} x{i} y{i} z{i}" for i in range(60)]
  texts = [phrase for s in sentences for phrase in (s, s[: s.rindex(" ")], s.split()[0])]
  part = labelled_sources.Part(texts, np.arange(len(texts), dtype=np.int32) // 3 % 2)
  apart = labelled_sources.stratified(part, ["validation"])
  together = labelled_sources.stratified(part, ["validation"], phrased=True)

  def shared(cut):
    train, validation = ({text.split()[0] for text in cut[split].texts} for split in ("train", "validation"))
    return train & validation

  assert shared(apart)
  assert not shared(together)
  assert len(together["validation"].texts) == 18
