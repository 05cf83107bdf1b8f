"""`semsynth train`: train the generator, then fine-tune it for guidance."""

from __future__ import annotations

import faulthandler
import shlex
from contextlib import suppress

from semsynth.cli.common import exit_at_once, exit_status, finish, parse
from semsynth.core.distributed.preemption import listening
from semsynth.core.identity import process_rank
from semsynth.training.recipe import TrainConfig, chosen_recipe, run_folder


def main(argv: list[str]) -> int:
    """Run the verb with its flags and return the exit status; one of several processes exits."""
    if process_rank()[1] == 1:
        return _train(argv)
    # Where each thread was, should one of the processes crash in a library: the others see it die.
    with suppress(ValueError, OSError, RuntimeError):  # a stderr that is not a file
        faulthandler.enable()
    try:
        status = exit_status(lambda: _train(argv))
    except SystemExit as ended:  # another process says why
        if ended.code is not None and not isinstance(ended.code, int):
            raise
        status = ended.code or 0
    exit_at_once(status)


def _train(argv: list[str]) -> int:
    # A signal may arrive while torch is being imported.
    with listening():
        config, as_json = parse(TrainConfig, argv, "train")
        chosen_recipe(config)  # report its mistakes before torch takes seconds to import
        from semsynth.training.loop import train

        result = train(config)
        if process_rank()[0] != 0:  # one of several processes prints
            return 0
        return finish(result if as_json else {**result, "next": next_command(config)}, as_json)


def next_command(config: TrainConfig) -> str:
    """Return the command that generates images with the trained model."""
    run = run_folder(config, chosen_recipe(config))
    words = ["generate", "--model", str(run), "--data", str(config.data)]
    return shlex.join(["semsynth", *words, "--output", str(run / "samples")])
