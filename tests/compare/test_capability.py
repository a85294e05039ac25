import sys

import pytest

from attention_lab.attention import spec
from attention_lab.compare.report import capability

COLUMNS = {"window": "window", "prefix": "prefix", "packing": "segments", "any mask": "explicit"}


def _lines(order):
  sheet = capability.sheet(order)
  return {row[0].strip("`"): dict(zip(sheet.head, row, strict=True)) for row in sheet.rows}


def test_matrix_says_of_every_variant_of_the_lab_what_it_claims():
  lines = _lines(spec.names())
  assert list(lines) == list(spec.names())
  for name, line in lines.items():
    claims = spec.parse(name).claims()
    for title, mask in COLUMNS.items():
      assert line[title] == (capability.YES if mask in claims.masks else capability.NO), (name, title)
    causal = "only" if claims.requires_causal else capability.YES if "causal" in claims.masks else capability.NO
    assert line["causal"] == causal
    assert line["padding"] == (capability.YES if {"q_valid", "kv_valid"} <= claims.masks else capability.NO)
    for title, claimed in (
      ("decoding", claims.decode),
      ("cross-\nattention", claims.cross),
      ("grouped\nkeys", claims.supports_gqa),
      ("bias on\nlogits", claims.bias),
      ("each query\non its own", claims.per_query),
    ):
      assert line[title] == (capability.YES if claimed else capability.NO), (name, title)
    assert line["exactness"] == claims.exactness
    assert line["time"] == {1: "T", 2: "T²"}.get(claims.time_exponent, f"T^{claims.time_exponent}")


def test_layers_claim_what_all_of_them_claim_and_cost_what_the_dearest_does():
  line = _lines(["3*linear|softmax"])["3*linear|softmax"]
  assert (line["window"], line["packing"], line["exactness"]) == (capability.NO, capability.YES, "other")
  assert (line["time"], line["state"]) == ("T²", "T")


def test_each_spec_has_one_line_and_other_architectures_none():
  order = ["linear@width=8", "linear@width=16", "additive@architecture=bilstm,pooling=attention", "softmax"]
  assert list(_lines(order)) == ["linear", "softmax"]
  left_out = "Left out, for they are another architecture: `additive@architecture=bilstm,pooling=attention`."
  assert left_out in capability.explanation(order)


def test_a_users_package_that_is_not_loaded_is_left_out_and_not_imported(tmp_path, monkeypatch):
  (tmp_path / "stranger_pkg.py").write_text("raise RuntimeError('imported')\n")
  monkeypatch.syspath_prepend(tmp_path)
  order = ["softmax", "stranger_pkg:Mine(k=3)"]
  assert list(_lines(order)) == ["softmax"]
  assert any("`stranger_pkg:Mine(k=3)`" in text for text in capability.explanation(order))
  assert "stranger_pkg" not in sys.modules


@pytest.mark.parametrize("order", [["<b>"], ["additive@architecture=cnn"], []])
def test_no_variant_gives_no_matrix(order):
  assert capability.sheet(order) is None
