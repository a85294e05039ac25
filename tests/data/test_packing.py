import numpy as np
import pytest
from hypothesis import given, settings, strategies

from attention_lab.data.packing import pack


def documents_of(lengths):
  first = np.cumsum([0, *lengths])
  return [np.arange(first[i] + 1, first[i] + 1 + length, dtype=np.int32) for i, length in enumerate(lengths)]


def runs(tokens, segments):
  """The tokens of every segment of every row."""
  return [row[numbers == n] for row, numbers in zip(tokens, segments, strict=True) for n in range(1, numbers.max() + 1)]


def first_fit_by_a_loop(lengths, room):
  free = []
  for length in sorted(lengths, reverse=True):
    row = next((i for i, left in enumerate(free) if left >= length), len(free))
    if row == len(free):
      free.append(room)
    free[row] -= length
  return free


def test_a_packed_row_in_full():
  tokens, segments = pack(documents_of([2, 4, 1]), room=5)
  np.testing.assert_array_equal(tokens, [[3, 4, 5, 6, 7], [1, 2, 0, 0, 0]])
  np.testing.assert_array_equal(segments, [[1, 1, 1, 1, 2], [1, 1, 0, 0, 0]])
  assert tokens.dtype == segments.dtype == np.int32


@settings(max_examples=60, deadline=None)
@given(strategies.lists(strategies.integers(0, 12), max_size=30), strategies.integers(1, 9))
def test_every_piece_is_one_run_of_one_segment_and_padding_is_segment_0(lengths, room):
  documents = documents_of(lengths)
  tokens, segments = pack(documents, room)
  pieces = [document[i : i + room] for document in documents for i in range(0, len(document), room)]
  assert sorted(map(tuple, runs(tokens, segments))) == sorted(map(tuple, pieces))
  np.testing.assert_array_equal(tokens == 0, segments == 0)
  steps = np.diff(segments, axis=1)
  assert np.isin(steps[segments[:, 1:] > 0], (0, 1)).all()
  assert not np.any((segments[:, :-1] == 0) & (segments[:, 1:] > 0))


@settings(max_examples=60, deadline=None)
@given(strategies.lists(strategies.integers(1, 9), max_size=40))
def test_the_rows_are_those_of_first_fit_decreasing_by_a_loop(lengths):
  tokens, segments = pack(documents_of(lengths), room=9)
  np.testing.assert_array_equal((segments == 0).sum(axis=1), first_fit_by_a_loop(lengths, 9))
  assert tokens.shape == (len(segments), 9)


@pytest.mark.parametrize("length", range(1, 12))
def test_with_an_overlap_of_one_every_token_but_the_first_is_a_target_exactly_once(length):
  tokens, segments = pack(documents_of([length]), room=4, overlap=1)
  inner = (segments[:, 1:] == segments[:, :-1]) & (segments[:, 1:] > 0)
  assert sorted(tokens[:, 1:][inner]) == list(range(2, length + 1))
  pieces = max(-(-(length - 1) // 3), 1)
  assert (segments > 0).sum() == length + pieces - 1


def test_parallel_arrays_land_in_the_places_of_their_documents():
  rng = np.random.default_rng(0)
  documents = [rng.integers(1, 99, size).astype(np.int32) for size in rng.integers(0, 20, 50)]
  tokens, segments = pack(documents, 16)
  squares, again = pack([document**2 for document in documents], 16)
  np.testing.assert_array_equal(squares, tokens**2)
  np.testing.assert_array_equal(again, segments)


def test_nothing_packs_into_no_rows():
  for documents in ([], [np.zeros(0, np.int32)]):
    tokens, segments = pack(documents, 3)
    assert tokens.shape == segments.shape == (0, 3)


@pytest.mark.parametrize("room, overlap", [(0, 0), (-1, 0), (3, 3), (3, -1)])
def test_a_row_without_room_is_refused(room, overlap):
  with pytest.raises(ValueError, match=rf"room={room} .*overlap={overlap}; give"):
    pack([np.ones(2, np.int32)], room, overlap)
