"""`semsynth segment train` and `semsynth segment score`: the segmenter that judges images."""

from __future__ import annotations

from semsynth.cli.common import finish, parse
from semsynth.core.errors import UserError

_USAGE = """usage: semsynth segment [-h] {train,score} ...

  train   train a segmenter on the real images of a prepared data set
  score   score a segmenter on a prepared data set or on samples"""


def main(argv: list[str]) -> int:
    """Run the sub-verb with its flags and return the exit status."""
    if not argv or argv[0] in ("-h", "--help"):
        print(_USAGE)
        return 0
    if argv[0] == "train":
        return _train(argv[1:])
    if argv[0] == "score":
        return _score(argv[1:])
    raise UserError(f"unknown `semsynth segment {argv[0]}`: it is `train` or `score`")


def _train(argv: list[str]) -> int:
    from semsynth.segmentation.config import SegmentTrainConfig

    config, as_json = parse(SegmentTrainConfig, argv, "segment train")
    from semsynth.segmentation.train import train

    return finish(train(config), as_json)


def _score(argv: list[str]) -> int:
    from semsynth.segmentation.config import SegmentScoreConfig

    config, as_json = parse(SegmentScoreConfig, argv, "segment score")
    from semsynth.segmentation.evaluate import score

    return finish(score(config), as_json)
