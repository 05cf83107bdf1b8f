import sys
import warnings

import diffusers
import numpy as np

from semsynth import SemanticDiffusionPipeline

warnings.simplefilter("ignore")
pipe = SemanticDiffusionPipeline.from_checkpoint(sys.argv[1], device="cpu")
pipe.set_progress_bar_config(disable=True)
mask = np.zeros((pipe.height, pipe.width), np.uint8)
ids = [label.id for label in pipe.labels.trainable][:2]
mask[: len(mask) // 2], mask[len(mask) // 2 :] = ids
config, bad = pipe.scheduler.config, False


def sample(steps):
    return np.asarray(pipe(mask, num_inference_steps=steps, seeds=[1]).images[0]).astype(float)


reference = sample(20)
for name, steps in (
    ("HeunDiscreteScheduler", 20),
    ("KDPM2AncestralDiscreteScheduler", 20),
    ("KDPM2DiscreteScheduler", 20),
    ("DDIMScheduler", 1),
    ("EulerDiscreteScheduler", 1),
    ("EulerDiscreteScheduler", 20),
):
    pipe.scheduler = getattr(diffusers, name).from_config(config)
    try:
        difference = np.abs(sample(steps) - reference).mean()
        print(name, steps, "steps: differs by", round(difference, 1), "of 255")
        bad |= difference > 10
    except Exception as error:
        print(name, steps, "refused:", error)
sys.exit(int(bad))
