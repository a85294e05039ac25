import dataclasses
import json
import re

import pytest

from attention_lab import timing
from attention_lab.benchmark import measure, peers, report, run, settings
from attention_lab.results import benchmark_rows

TINY = settings.Settings(
  ("softmax", "linear", "linformer"), lengths=(24, 40), heads=2, head_width=4, rounds=3, matmul=8, peers=("jax_dpa",)
)
MODES = ("forward", "train", "decode")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """A real run of two variants, one that refuses, and a peer, in all three modes."""
  folder = tmp_path_factory.mktemp("run")
  lines = []
  assert run.execute(TINY, folder, lines.append, explain=True) == 0
  return folder, benchmark_rows.read(folder / benchmark_rows.FILE).rows, lines


def test_every_mode_and_length_has_a_row_for_every_name(finished):
  _, rows, _ = finished
  assert [(row["mode"], row["length"], row["attention"]) for row in rows] == [
    (mode, length, name) for mode in MODES for length in (24, 40) for name in TINY.names()
  ]


def test_a_done_row_holds_all_that_a_reader_asks_for(finished):
  _, rows, _ = finished
  done = [row for row in rows if row["status"] == "done"]
  assert {row["attention"] for row in done} == {"softmax", "linear", "jax_dpa"}
  for row in done:
    assert len(row["times"]) == len(row["baseline_times"]) == len(row["matmul_times"]) == row["rounds"] == 3
    assert row["ratio"]["low"] <= row["ratio"]["median"] <= row["ratio"]["high"]
    assert row["memory"]["peak"] > row["memory"]["arguments"] > 0
    assert row["needs"] >= row["memory"]["peak"]
    assert row["flops"] > 0
    assert row["compile_seconds"] > 0
    assert row["compile_cached"] is False
    assert row["first_seconds"] > 0
    assert row["share_of_matmul"]["median"] > 0
    assert row["command"].startswith("python -m experiments.benchmark --attention=")
    assert {"commit", "versions", "device", "cores", "settings", "digest", "session"} <= row.keys()


def test_the_baseline_is_its_own_ratio_of_one(finished):
  _, rows, _ = finished
  assert {row["ratio"]["median"] for row in rows if row["attention"] == "softmax"} == {1.0}


def test_what_a_variant_does_not_claim_is_a_row_that_says_so(finished):
  _, rows, lines = finished
  refused = [row for row in rows if row["attention"] == "linformer"]
  assert {row["status"] for row in refused} == {"refused"}
  assert "constraint 'causal'" in refused[0]["reason"]
  assert "cannot decode step by step" in refused[-1]["reason"]
  assert any("linformer: refused" in line for line in lines)


def test_training_costs_more_flops_than_forward_and_a_decoded_token_fewer(finished):
  _, rows, _ = finished
  flops = {(row["mode"], row["attention"]): row["flops"] for row in rows if row["length"] == 40 and "flops" in row}
  for name in ("softmax", "linear", "jax_dpa"):
    assert flops["train", name] > 2 * flops["forward", name] > flops["decode", name]


def test_the_report_shows_all_in_files_that_stand_alone(finished):
  folder, _, _ = finished
  text = (folder / "report.md").read_text()
  for phrase in ("## Forward, causal", "## Train", "## Decode", "### Crossover", "24 | `jax_dpa`", "What ran"):
    assert phrase in text
  page = (folder / "report.html").read_text()
  assert page.count("<svg") == 9
  assert "http" not in page
  for name in (f"{mode}_{kind}.svg" for mode in MODES for kind in ("time", "memory", "speed")):
    assert name in text
    assert (folder / name).read_text().startswith("<?xml")


def test_what_is_measured_is_not_measured_again(finished, monkeypatch):
  folder, rows, _ = finished
  before = (folder / benchmark_rows.FILE).read_bytes()
  monkeypatch.setattr(measure, "measure", lambda *_, **__: pytest.fail("measured again"))
  lines = []
  assert run.execute(TINY, folder, lines.append) == 0
  assert lines == [f"{len(rows)} of {len(rows)} rows are measured already: going on with the others"]
  assert (folder / benchmark_rows.FILE).read_bytes() == before


def test_a_killed_run_goes_on_beside_its_baseline(finished, tmp_path):
  folder, rows, _ = finished
  written = (folder / benchmark_rows.FILE).read_bytes().splitlines(keepends=True)
  cut = next(i for i, row in enumerate(rows) if row["attention"] == "linear")
  (tmp_path / benchmark_rows.FILE).write_bytes(b"".join([*written[:cut], *written[cut + 1 :]]) + written[cut][:99])
  run.execute(TINY, tmp_path, lambda _: None)
  *old, new = benchmark_rows.read(tmp_path / benchmark_rows.FILE).rows
  assert len(old) == len(rows) - 1
  assert (new["attention"], new["mode"], new["length"]) == ("linear", "forward", 24)
  assert new["session"] != old[0]["session"]
  assert len(new["baseline_times"]) == 3
  assert "was cut short by a kill" in (tmp_path / "report.md").read_text()


def test_other_settings_are_measured_anew_and_kept_apart(finished, tmp_path):
  folder, _, _ = finished
  (tmp_path / benchmark_rows.FILE).write_bytes((folder / benchmark_rows.FILE).read_bytes())
  other = dataclasses.replace(TINY, batch=2, modes=("forward",), lengths=(24,), attention=("softmax",), peers=())
  run.execute(other, tmp_path, lambda _: None)
  text = (tmp_path / "report.md").read_text()
  assert "B2 N2 K2 H4" in text
  assert "24 rows of other settings" in text
  assert "`linear`" not in text


def test_what_does_not_fit_is_skipped_before_it_runs(monkeypatch):
  small = dataclasses.replace(TINY, memory=1e-6, modes=("forward",), lengths=(24,))
  monkeypatch.setattr(timing, "warm_up", lambda sample, _: pytest.fail("ran") if sample.calls > 1 else timing.Timed([]))
  rows = measure.measure(small, measure.cases(small)[0], ["softmax", "linformer"])
  assert [row["status"] for row in rows] == ["skipped", "refused"]
  assert rows[0]["reason"].endswith("0.00 GiB may be used")


def test_skipped_and_failed_rows_are_tried_again_and_a_done_one_wins(rows):
  done, skipped = rows[0], {**rows[0], "status": "skipped", "reason": "needs 9 GiB"}
  case = measure.Case("forward", 64, 1, 8, 8, 64, "float32", True)
  assert run.unmeasured(["softmax"], case, "d", [skipped]) == ["softmax"]
  assert run.unmeasured(["softmax"], case, "d", [skipped, done]) == []
  assert benchmark_rows.current([done, skipped]) == [done]


def test_peers_that_cannot_run_here_are_refused_by_name(tmp_path, monkeypatch):
  monkeypatch.setattr(peers.importlib.util, "find_spec", lambda _: None)
  for name, message in (
    ("torch_sdpa", r"needs torch.*\[peers\]"),
    ("tokamax", "needs tokamax"),
    ("jax_cudnn", "a GPU"),
  ):
    with pytest.raises(ValueError, match=f"--peers={name} {message}" if message != "a GPU" else "needs a GPU"):
      run.execute(dataclasses.replace(TINY, peers=(name,)), tmp_path / "new", lambda _: None)
  assert not (tmp_path / "new").exists()


def test_a_row_is_json_that_names_its_own_command(finished):
  folder, _, _ = finished
  row = json.loads((folder / benchmark_rows.FILE).read_text().splitlines()[2])
  assert row["command"] == (
    "python -m experiments.benchmark --attention=linformer --lengths=24 --mode=forward --heads=2 --kv_heads=2"
    " --head_width=4 --rounds=3 --baseline=softmax --matmul=8"
  )


def test_a_machine_that_others_use_is_said_in_the_report(rows, tmp_path):
  for name, used in (("quiet", 0.02), ("busy", 1.5)):
    folder = tmp_path / name
    folder.mkdir()
    for row in rows:
      benchmark_rows.append(folder / benchmark_rows.FILE, {**row, "other_load": used})
    report.write(folder)
  assert "not quiet" not in (tmp_path / "quiet" / "report.md").read_text()
  assert "others used up to 1.5 cores while 6 of 6 rows ran" in (tmp_path / "busy" / "report.html").read_text()


def test_the_report_of_rows_names_the_crossover_with_its_interval(rows, tmp_path):
  for row in rows:
    benchmark_rows.append(tmp_path / benchmark_rows.FILE, row)
  report.write(tmp_path)
  (line,) = [line for line in (tmp_path / "report.md").read_text().splitlines() if line.startswith("| `linear` | 1")]
  assert re.fullmatch(r"\| `linear` \| 1[45]\d \[1[45]\d, 1[45]\d\] \| from 64, the shortest, on \|", line)
