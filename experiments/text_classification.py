r"""Text classification: trains an encoder, a decoder or a baseline to name the class of a text.

On a laptop (5 minutes on one core; accuracy 0.82 on the published development set, a bag of words 0.83):
  python -m experiments.text_classification --config.data.name=sst2 --config.data.dir=DIR --config.data.length=64 \
    --config.model.width=128 --config.model.dropout=0.3 --config.steps=2500 --config.batch=64 \
    --config.optimizer.learning_rate=5e-4 --config.optimizer.weight_decay=1.0 --config.evaluate_every=250 \
    --config.checkpoint.select=best --workdir=runs/sst2
One GPU, files of one's own with columns text and label:
  python -m experiments.text_classification --config.data.path=reviews.csv --config.model.width=512 \
    --config.model.layers=6 --config.model.dtype=bfloat16 --config.batch=256 --workdir=runs/reviews
A pod, the same command on every host:
  python -m experiments.text_classification --coordinator=auto --config.data.name=imdb_reviews \
    --config.data.length=1024 --config.batch=1024 --workdir=/shared/runs/imdb
"""

from attention_lab import cli
from attention_lab.tasks import text_classification
from attention_lab.workflows import training

CONFIG = cli.define_config(text_classification.Config())


def main() -> None:
  training.run(text_classification, CONFIG.value)


if __name__ == "__main__":
  cli.run(main, CONFIG)
