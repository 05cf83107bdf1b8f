"""`semsynth train`: train the generator, then fine-tune it for guidance."""

from __future__ import annotations

from semsynth.cli.common import finish, parse
from semsynth.core.distributed.preemption import listening
from semsynth.core.distributed.shards import process_rank
from semsynth.training.recipe import TrainConfig, chosen_recipe


def main(argv: list[str]) -> int:
    """Run the verb with its flags and return the exit status."""
    # A signal may arrive while torch is being imported.
    with listening():
        config, as_json = parse(TrainConfig, argv, "train")
        chosen_recipe(config)  # report its mistakes before torch takes seconds to import
        from semsynth.training.loop import train

        result = train(config)
        # One of several processes prints.
        return finish(result, as_json) if process_rank()[0] == 0 else 0
