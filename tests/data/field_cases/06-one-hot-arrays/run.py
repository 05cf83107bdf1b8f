import sys
import warnings

import numpy as np
import torch

from semsynth import SemanticDiffusionPipeline as P

warnings.simplefilter("ignore")
pipe = P.from_pretrained(sys.argv[1])
pipe.set_progress_bar_config(disable=True)
m = np.zeros((48, 64), np.int64)
m[24:] = 1
m[:20] = 2
m[30:38, 10:26] = 3
hot = torch.nn.functional.one_hot(torch.from_numpy(m), 4)
bad = 0
for name, mask in (("(H,W,K)", hot), ("(K,H,W)", hot.permute(2, 0, 1))):
    try:
        n = len(pipe(mask, num_inference_steps=1).images)
        print(name, "gave", n, "pictures of one mask")
        bad |= n != 1
    except Exception as e:
        print(name, "refused:", e)
sys.exit(int(bad))
