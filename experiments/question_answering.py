r"""Question answering: trains an encoder on the 20 tasks of bAbI at once, or to point at spans of a context.

On a laptop, bAbI with 1,000 questions a task (`python -m attention_lab.data.builders --name=babi --dir=DIR` makes it;
8 minutes of processor time, mean accuracy 0.84 over the 20 tasks):
  python -m experiments.question_answering --config.data.dir=DIR --config.data.sentences --config.model.pooling=first \
    --config.optimizer.weight_decay=0.1 --config.steps=5000 --config.evaluate_every=500 \
    --config.checkpoint.select=best --workdir=runs/babi
One GPU, SQuAD, from an encoder that masked_language_modeling has trained with 12 layers of 768 and 12 heads:
  python -m experiments.question_answering --config.data.name=squad --config.data.length=384 \
    --config.pretrained=runs/bert --config.data.tokenizer=wordpiece --config.data.vocabulary=30000 \
    --config.model.layers=12 --config.model.width=768 --config.model.heads=12 --config.model.dtype=bfloat16 \
    --config.model.norm_place=post --config.model.positions=learned --config.optimizer.learning_rate=5e-5 \
    --config.batch=32 --config.steps=5500 --workdir=runs/squad
A pod, the same command on every host:
  python -m experiments.question_answering --coordinator=auto --config.data.name=squad --config.batch=512 \
    --config.model.layers=12 --config.model.width=768 --config.model.heads=12 --workdir=/shared/runs/squad
"""

from attention_lab import cli
from attention_lab.tasks import question_answering
from attention_lab.workflows import training

CONFIG = cli.define_config(question_answering.Config())


def main() -> None:
  training.run(question_answering, CONFIG.value)


if __name__ == "__main__":
  cli.run(main, CONFIG)
