import sys
import warnings

import numpy as np

from semsynth import SemanticDiffusionPipeline
from semsynth.core.errors import UserError

warnings.simplefilter("ignore")
pipe = SemanticDiffusionPipeline.from_pretrained(sys.argv[1])
pipe.set_progress_bar_config(disable=True)
mask, bad = np.ones((48, 64), np.uint8), False
for arguments, fine in (
    ({"num_inference_steps": np.int64(2)}, True),
    ({"num_images": np.int64(2), "num_inference_steps": 1}, True),
    ({"guidance_scale": "1.5"}, False),
    ({"guidance_scale": [1.0, 2.0]}, False),
    ({"guidance_interval": 0.5}, False),
):
    try:
        pipe(mask, **arguments)
        print(arguments, "taken")
    except UserError as error:
        print(arguments, "UserError:", error)
        bad |= fine
    except Exception as error:
        print(arguments, type(error).__name__, error)
        bad = True
sys.exit(int(bad))
