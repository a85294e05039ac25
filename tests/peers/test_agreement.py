"""The table of agreements; it needs none of the peers."""

import pathlib

import agreement
import pytest

from attention_lab.attention import spec

FILES = pathlib.Path(__file__).parent.glob("test_*.py")


def test_at_least_fifteen_variants_of_the_lab_have_a_peer():
  assert len(agreement.PEERS) >= 15
  assert set(agreement.PEERS) <= set(spec.names())


def test_every_variant_of_the_table_is_compared_in_a_test():
  source = "".join(path.read_text() for path in FILES if path.name != pathlib.Path(__file__).name)
  assert not [variant for variant in agreement.PEERS if f'"{variant}' not in source]


def test_the_table_has_a_row_for_each_pair_and_its_version():
  rows = agreement.markdown().splitlines()[2:]
  pairs = [(variant, peer) for variant, peers in sorted(agreement.PEERS.items()) for peer in peers]
  assert len(rows) == len(pairs)
  for row, (variant, peer) in zip(rows, pairs, strict=True):
    assert row.startswith(f"| `{variant}` | `{peer.name}` | {peer.version} |")


def test_a_difference_above_the_tolerance_is_not_agreement(monkeypatch):
  monkeypatch.setattr(agreement, "DIFFERENCES", {})
  agreement.agree("softmax", agreement.SDPA, [1.0, 2.0], [1.0, 2.0])
  with pytest.raises(AssertionError):
    agreement.agree("softmax", agreement.SDPA, [1.0, 2.0 + 3e-5], [1.0, 2.0])


def test_the_readme_holds_the_table():
  text = (pathlib.Path(__file__).parent / "README.md").read_text()
  assert text.partition("<!-- agreement -->\n")[2].partition("\n<!-- /agreement -->")[0] == agreement.markdown()
