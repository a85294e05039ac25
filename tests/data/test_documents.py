from pathlib import Path

import pytest

from attention_lab.data.documents import user_text


def write(folder, **texts):
  for name, text in texts.items():
    file = folder / f"{name}.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
  return str(folder)


def test_one_file_is_cut_at_line_ends_near_80_and_90_percent_and_nothing_is_lost(tmp_path):
  text = "".join(f"línea {i} of a plain text file\n" for i in range(1000))
  file = tmp_path / "book.md"
  file.write_text(text, encoding="utf-8")
  corpus = user_text(str(file))
  pieces = [corpus.splits[split]["book.md"] for split in ("train", "validation", "test")]
  assert (corpus.name, corpus.split) == ("book.md", "contiguous")
  assert "".join(pieces) == text
  assert all(piece.endswith("\n") for piece in pieces)
  shares = [len(piece.encode()) / len(text.encode()) for piece in pieces]
  assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.003)


@pytest.mark.parametrize("text", ["word " * 4000, "é" * 10_000, "日本" * 5000])
def test_a_text_without_lines_is_cut_between_words_or_characters(tmp_path, text):
  corpus = user_text(write(tmp_path, only=text))
  pieces = [corpus.splits[split]["only.txt"] for split in ("train", "validation", "test")]
  assert "".join(pieces) == text
  assert [len(piece) / len(text) for piece in pieces] == pytest.approx([0.8, 0.1, 0.1], abs=0.003)


def test_few_files_are_read_recursively_in_order_and_cut_as_one(tmp_path):
  path = write(tmp_path, **{"b/deep/two": "two\n" * 500, "a": "one\n" * 500})
  (tmp_path / "notes.md").write_text("not a text file")
  (tmp_path / "empty.txt").write_text("")
  splits = user_text(path).splits
  assert list(splits["train"]) == ["a.txt", str(Path("b/deep/two.txt"))]
  assert splits["train"]["a.txt"] == "one\n" * 500
  assert list(splits["test"]) == [str(Path("b/deep/two.txt"))]


def test_ten_files_or_more_are_split_by_document_and_equal_ones_stay_together(tmp_path):
  texts = {f"doc{i:02}": f"text number {i // 2:02}\n" * 20 for i in range(60)}
  corpus = user_text(write(tmp_path, **texts))
  assert corpus.split == "by document"
  names = {split: set(found) for split, found in corpus.splits.items()}
  assert {split: len(found) for split, found in names.items()} == {"train": 48, "validation": 6, "test": 6}
  assert set.union(*names.values()) == {f"{name}.txt" for name in texts}
  contents = {split: set(found.values()) for split, found in corpus.splits.items()}
  assert not contents["train"] & (contents["test"] | contents["validation"])


def test_ten_files_that_leave_a_split_empty_are_cut_as_one(tmp_path):
  corpus = user_text(write(tmp_path, **{f"doc{i}": f"text number {i}\n" * (20 + 900 * (i > 0)) for i in range(10)}))
  assert corpus.split == "contiguous"


def test_a_missing_path_is_refused_by_name(tmp_path):
  with pytest.raises(ValueError, match=r"--config\.data\.path=.*nowhere cannot be read .*No such file"):
    user_text(str(tmp_path / "nowhere"))
  with pytest.raises(ValueError, match=r"--config\.data\.path=~nobody-by-this-name/x cannot be read"):
    user_text("~nobody-by-this-name/x")


def test_invalid_utf8_is_refused_with_file_and_byte(tmp_path):
  path = write(tmp_path, good="fine", bad="héllo".encode() + b"\xff\xfe")
  with pytest.raises(ValueError, match=r"--config\.data\.path: .*bad\.txt is not UTF-8 at byte 6"):
    user_text(path)


@pytest.mark.parametrize("texts", [{}, {"a": "", "b": " \n\t\n"}])
def test_an_empty_corpus_is_refused(tmp_path, texts):
  with pytest.raises(ValueError, match=r"--config\.data\.path=.* holds no text"):
    user_text(write(tmp_path, **texts))


def test_every_refusal_is_one_line(tmp_path):
  for path in (tmp_path / "nowhere", tmp_path):
    with pytest.raises(ValueError, match="--config") as caught:
      user_text(str(path))
    assert "\n" not in str(caught.value)
