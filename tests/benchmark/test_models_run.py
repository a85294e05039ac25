import dataclasses
import json

import pytest

from attention_lab.benchmark.models import report, run, settings

TINY = settings.Settings(
  ("gpt",),
  ("softmax", "linear", "fourier"),
  sizes={"layers": 2, "width": 16, "heads": 2, "length": 8, "vocabulary": 32},
  batch=(2,),
  rounds=3,
  pause=0.0,
  matmul=8,
)
WITH_PEER = dataclasses.replace(TINY, attention=("softmax",), peers=("hf_eager",))
READY = {"status": "done", "reason": "", "parameters": 1000, "versions": {"jax": "1"}, "device": "1 × cpu"}
ANSWERS = {
  "matmul": {"status": "done", "flops": 100},
  "softmax": {**READY, "flops": 50, "compile_seconds": 2.0, "first": {"first_seconds": 1.0, "loss": 3.5}},
  "hf_eager": {**READY, "versions": {"torch": "2"}, "first": {"first_seconds": 4.0, "loss": 3.5000001}},
}


def taken(**times):
  return {name: [{"seconds": answer} for answer in values] for name, values in times.items()}


def table(chosen, answers, times):
  rows = run.rows(chosen, chosen.models[0], 2, answers, times)
  return {row["attention"]: row for row in rows}


def written(folder, chosen, rows, session="s"):
  shared = {"settings": chosen.row_settings(rows[0]["model"], 2), "commit": "abc", "device": "1 × cpu", "cores": 2}
  shared |= {"digest": "d", "session": session, "command": "python -m experiments.benchmark_models"}
  for row in rows:
    report.append(folder, shared | {"versions": {}} | row)
  return report.write(folder)[0].read_text()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """A real run, each program in its process."""
  folder = tmp_path_factory.mktemp("run")
  lines = []
  assert run.execute(TINY, folder, lines.append) == 0
  return folder, [json.loads(line) for line in (folder / report.FILE).read_text().splitlines()], lines


def test_every_variant_has_a_row_and_one_that_is_not_causal_says_why(finished):
  _, rows, lines = finished
  assert [(row["attention"], row["status"]) for row in rows] == [
    *(("softmax", "done"), ("linear", "done")),
    ("fourier", "refused"),
  ]
  assert "fourier is not causal" in rows[-1]["reason"]
  assert any("gpt 2 fourier: refused" in line for line in lines)


def test_a_done_row_holds_all_that_a_reader_asks_for(finished):
  _, rows, _ = finished
  for row in rows[:2]:
    assert len(row["times"]) == len(row["baseline_times"]) == len(row["matmul_times"]) == row["rounds"] == 3
    assert (row["unit"], row["items"]) == ("tokens", 16)
    assert row["per_second"]["median"] == pytest.approx(16 / row["time"]["median"])
    assert row["host_seconds"]["median"] > 0
    assert row["parameters"] == 32 * 16 + 8 * 16 + 2 * (12 * 16 * 16 + 13 * 16) + 2 * 16
    assert row["flops"] > 0
    assert row["share_of_matmul"]["median"] > 0
    assert row["memory"]["temporaries"] > 0
    assert row["resident"] > 2**20
    assert row["compile_cached"] is False
    assert row["first_loss"] == pytest.approx(3.9, abs=1.5)
    assert {"commit", "versions", "device", "cores", "settings", "digest", "session", "command"} <= row.keys()
  assert rows[0]["ratio"]["median"] == 1.0


def test_the_run_leaves_rows_report_and_log_and_no_weights(finished):
  folder, _, _ = finished
  assert {path.name for path in folder.iterdir()} == {
    *("rows.jsonl", "report.md", "report.html", "gpt_2_time.svg", "workers.log")
  }
  text = (folder / "report.md").read_text()
  for phrase in ("## GPT, one training step, batch 2", "time ÷ softmax [95 %]", "| `linear` |", "--vocabulary=32"):
    assert phrase in text


def test_rates_ratios_and_shares_are_taken_in_each_round():
  times = taken(matmul=[1.0, 2.0, 1.0], softmax=[2.0, 4.0, 2.0], hf_eager=[8.0, 16.0, 8.0])
  rows = table(WITH_PEER, ANSWERS, times)
  assert rows["hf_eager"]["ratio"]["median"] == 4.0
  assert rows["hf_eager"]["ratio"]["low"] == pytest.approx(4.0)
  assert rows["softmax"]["per_second"]["median"] == 8.0
  assert rows["softmax"]["share_of_matmul"]["median"] == pytest.approx(0.25)
  assert rows["softmax"]["matmul_flops_per_second"] == 100
  assert "share_of_matmul" not in rows["hf_eager"]


def test_a_worker_that_died_is_a_failed_row_and_the_others_keep_their_times(tmp_path):
  died = {**ANSWERS, "hf_eager": {**ANSWERS["hf_eager"], "status": "failed", "reason": "code -9: Killed"}}
  rows = table(WITH_PEER, died, taken(matmul=[1.0] * 3, softmax=[2.0] * 3, hf_eager=[3.0]))
  assert rows["softmax"]["rounds"] == 3
  assert "ratio" not in rows["hf_eager"]
  text = written(tmp_path, WITH_PEER, list(rows.values()))
  assert "| `hf_eager` | failed: code -9: Killed |" in text
  assert "What differs" not in text


def test_the_report_sets_both_systems_side_by_side(tmp_path):
  times = taken(matmul=[1.0] * 3, softmax=[2.0, 2.1, 2.2], hf_eager=[4.0, 4.2, 4.4])
  text = written(tmp_path, WITH_PEER, list(table(WITH_PEER, ANSWERS, times).values()))
  assert "| loss of the first step, same weights and batch | 3.500000 | 3.500000 |" in text
  assert "| parameters | 1\N{NARROW NO-BREAK SPACE}000 | 1\N{NARROW NO-BREAK SPACE}000 |" in text
  assert "torch 2" in text


def test_generated_tokens_are_held_against_those_of_the_model_that_gave_the_weights(tmp_path):
  sizes = {**TINY.sizes, "new_tokens": 2}
  chosen = dataclasses.replace(WITH_PEER, models=("generate",), sizes=sizes)
  ours = READY | {"first": {"first_seconds": 1.0, "tokens": [[1, 2], [3, 4]]}}
  peer = READY | {"first": {"first_seconds": 1.0, "tokens": [[1, 2], [3, 5]]}}
  answers = {"matmul": ANSWERS["matmul"], "softmax": ours, "hf_eager": peer}
  rows = table(chosen, answers, taken(matmul=[1.0] * 3, softmax=[1.0] * 3, hf_eager=[2.0] * 3))
  assert rows["hf_eager"]["tokens_equal"] == 0.75
  assert rows["hf_eager"]["per_second"]["median"] == 2.0
  assert "hf_eager 75 %" in written(tmp_path, chosen, list(rows.values()))


def test_a_warm_start_is_over_the_cold_one_of_its_own_round(tmp_path):
  parts = ("import", "init", "compile", "trace", "lower", "backend", "step")
  answer = READY | {f"{part}_seconds": 0.5 for part in parts}
  cold = [answer | {"seconds": 4.0 + i, "hits": 0, "requests": 2} for i in range(3)]
  warm = [answer | {"seconds": 2.0 + i / 2, "hits": 2, "requests": 2} for i in range(3)]
  chosen = dataclasses.replace(TINY, models=("start",), attention=("softmax",))
  rows = run.starts(chosen, 2, {"softmax cold": cold, "softmax warm": warm})
  assert [row["ratio"]["median"] for row in rows] == [1.0, 0.5]
  text = written(tmp_path, chosen, rows)
  assert "| `softmax warm` |" in text
  assert "| 2 of 2 | 3 |" in text


def test_the_report_shows_the_newest_session_of_each_model_and_counts_a_broken_line(tmp_path):
  times = taken(matmul=[1.0] * 3, softmax=[2.0] * 3)
  chosen = dataclasses.replace(TINY, attention=("softmax",))
  rows = list(table(chosen, ANSWERS, times).values())
  written(tmp_path, chosen, [{**rows[0], "parameters": 777}], "old")
  (tmp_path / report.FILE).open("a").write('{"cut')
  text = written(tmp_path, chosen, rows, "new")
  assert "777" not in text
  assert "line 2 was cut short by a kill" in text


def test_a_line_that_is_no_row_is_refused():
  with pytest.raises(ValueError, match="it lacks model, batch"):
    report.check({})
  with pytest.raises(ValueError, match="status 'odd' is not one of done, refused, failed"):
    report.check(dict.fromkeys(report.REQUIRED, "") | {"status": "odd"})
