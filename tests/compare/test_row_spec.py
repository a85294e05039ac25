"""Rows that change the model beside the variant."""

import pytest

from attention_lab.attention import Unsupported
from attention_lab.compare import run
from attention_lab.compare.schedule import grid, row_spec
from attention_lab.compare.schedule.protocol import Protocol
from attention_lab.mesh import make_mesh
from attention_lab.results import records
from attention_lab.tasks import base, recall, text_classification

SMALL = ["--config.data.train=64", "--config.batch=8"]


def test_a_row_has_one_way_to_be_written():
  written = row_spec.canonical("additive @ pooling = attention,architecture=bilstm")
  assert written == "additive@architecture=bilstm,pooling=attention"
  assert row_spec.canonical("softmax(scale=None)") == "softmax"
  assert row_spec.split("softmax@stages=2,2,block=cbam") == ("softmax", {"stages": "2,2", "block": "cbam"})


@pytest.mark.parametrize("text", ["softmax@cnn", "softmax@=cnn", "softmax@width=8,width=9", "softmax@attention=linear"])
def test_a_malformed_row_is_refused(text):
  with pytest.raises(ValueError, match=r"row '.*'"):
    row_spec.canonical(text)


def test_a_row_changes_its_own_model_and_nothing_else():
  config, other = text_classification.Config(), text_classification.Config()
  row_spec.apply(config, "bilinear@architecture=lstm,dropout=0.5")
  assert (config.model.attention, config.model.architecture, config.model.dropout) == ("bilinear", "lstm", 0.5)
  config.model = other.model
  assert config == other


def test_a_field_that_the_task_lacks_is_a_refused_row(tmp_path):
  comparison = run.plan("recall", "softmax@architecture=lstm;softmax", 2, SMALL, Protocol(seeds="1"))
  with pytest.raises(Unsupported, match=r"config\.model\.architecture is no field of this task's model"):
    row_spec.apply(recall.Config(), "softmax@architecture=lstm")
  mesh = make_mesh(next(iter(comparison.tasks.values())).mesh)
  run.execute(comparison, tmp_path, mesh, lambda line: None)
  held = {row["attention"]: row for row in records.read(tmp_path / records.RESULTS).rows}
  assert held["softmax@architecture=lstm"]["status"] == "refused"
  assert held["softmax"]["status"] == "done"
  assert len({row["config_digest"] for row in held.values()}) == 1
  assert [cell.attention for cell in grid.read(tmp_path)] == ["softmax@architecture=lstm", "softmax"]


def test_the_rows_of_a_task_read_its_data_once(tmp_path, monkeypatch):
  calls, load = [], recall._source
  monkeypatch.setattr(recall, "_source", lambda data: calls.append(data) or load(data))
  comparison = run.plan("recall", "softmax;linear;identity", 2, SMALL, Protocol(seeds="1"))
  run.execute(comparison, tmp_path, make_mesh(recall.Config().mesh), lambda line: None)
  rows_ = records.read(tmp_path / records.RESULTS).rows
  assert [row["status"] for row in rows_] == ["done"] * 3
  assert len(calls) == 1


def test_a_source_cache_tells_settings_apart():
  cache = base.SourceCache()
  first, same, other = (cache(recall._source, recall.DataConfig(train=n)) for n in (32, 32, 48))
  assert first is same
  assert len(other.splits["train"]) == 48
