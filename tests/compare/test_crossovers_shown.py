import json

import pytest

from attention_lab.benchmark import tables
from attention_lab.compare import report
from attention_lab.compare.report import crossovers
from attention_lab.results import benchmark_rows, records

LENGTHS = (256, 512, 1024, 2048, 4096)
SETTINGS = {"batch": 1, "heads": 8, "head_width": 64, "dtype": "float32", "causal": True}


def _row(name, length, seconds, peak, mode="forward", digest="d1"):
  exact = [length**2 * 1e-9 * factor for factor in (1.0, 1.01, 0.99, 1.0, 1.02, 0.98, 1.0)]
  times = [seconds * factor for factor in (0.98, 1.0, 1.01, 0.99, 1.02, 1.0, 1.0)]
  return {
    "mode": mode,
    "length": length,
    "attention": name,
    "status": "done",
    "reason": "",
    "digest": digest,
    "settings": SETTINGS,
    "commit": "26ac4f06fcce",
    "device": "1 × cpu",
    "exact": name == "softmax",
    "times": exact if name == "softmax" else times,
    "baseline_times": exact,
    "rounds": 7,
    "memory": {"peak": peak},
    "command": f"python -m experiments.benchmark --attention='{name}' --lengths={length}",
  }


def _benchmark(folder):
  """The linear one costs what 1,000 positions cost the exact one, times T / 1000, and its memory crosses at 700."""
  folder.mkdir()
  for length in LENGTHS:
    records.append_line(folder / benchmark_rows.FILE, _row("softmax", length, 0.0, length**2))
    records.append_line(folder / benchmark_rows.FILE, _row("linear", length, 1000 * length * 1e-9, 700 * length))
    records.append_line(folder / benchmark_rows.FILE, _row("slow", length, 2 * length**2 * 1e-9, 3 * length**2))
  return folder


def test_crossing_is_where_the_benchmarks_own_code_finds_it(tmp_path):
  folder = _benchmark(tmp_path / "bench")
  crossings = crossovers.read(folder, ["softmax", "linear@width=8", "slow", "absent", "additive@architecture=cnn"])
  lines = {row[0]: row for row in crossings.sheet.rows}
  assert float(lines["`linear`"][2].split(" ")[0]) == pytest.approx(1000, rel=0.03)
  assert "[" in lines["`linear`"][2]
  assert float(lines["`linear`"][3]) == pytest.approx(700, rel=0.01)
  assert lines["`slow`"][2:4] == ["not within 256 … 4096"] * 2
  assert lines["`softmax`"][2] == "it is the exact one itself"
  assert "Not in the benchmark: `absent`." in crossings.explanation
  rows = benchmark_rows.current(benchmark_rows.read(folder / benchmark_rows.FILE).rows)
  theirs = {row[0]: row[1:] for row in tables.crossovers(rows, "forward").rows}
  for name in ("`linear`", "`slow`"):
    assert lines[name][2:4] == theirs[name]


def test_every_crossing_carries_the_commands_that_remake_it(tmp_path):
  crossings = crossovers.read(_benchmark(tmp_path / "bench"), ["linear"])
  assert [command for _, command in crossings.commands] == [
    f"python -m experiments.benchmark --attention='linear' --lengths={length}" for length in LENGTHS
  ]


def test_older_settings_of_a_benchmark_are_not_mixed_in(tmp_path):
  folder = _benchmark(tmp_path / "bench")
  for length in LENGTHS:
    for name, seconds in (("softmax", 0.0), ("linear", length**2 * 1e-10)):
      records.append_line(folder / benchmark_rows.FILE, _row(name, length, seconds, length, "decode", "d2"))
  crossings = crossovers.read(folder, ["linear"])
  assert [row[1:3] for row in crossings.sheet.rows] == [["decode", "from 256, the shortest, on"]]


def test_report_shows_crossings_only_where_a_benchmark_is_named(workdir, tmp_path):
  report.write(workdir)
  assert "Crossover" not in (workdir / "report.html").read_text()
  _benchmark(tmp_path / "bench")
  (workdir / crossovers.FILE).write_text(json.dumps({"folder": "bench"}))
  report.write(workdir)
  named = (workdir / "report.html").read_text()
  assert 'id="Crossover-lengths"' in named
  assert "## Crossover lengths" in (workdir / "report.md").read_text()
  (workdir / crossovers.FILE).unlink()
  report.write(workdir, benchmark=tmp_path / "bench")
  assert (workdir / "report.html").read_text() == named


def test_benchmark_without_rows_is_refused_by_name(workdir, tmp_path):
  with pytest.raises(
    ValueError, match=r"nowhere/rows\.jsonl holds no row: run python -m experiments\.benchmark"
  ) as told:
    report.write(workdir, benchmark=tmp_path / "nowhere")
  assert "\n" not in str(told.value)


@pytest.mark.parametrize("content", ["", "[]", '{"folder": 3}', '{"folder": "bench", "mode": "train"}', "{"])
def test_malformed_naming_of_a_benchmark_is_refused(workdir, content):
  (workdir / crossovers.FILE).write_text(content)
  with pytest.raises(ValueError, match=r'benchmark\.json must hold \{"folder": PATH\}'):
    report.write(workdir)
