#!/usr/bin/env bash
#SBATCH --job-name=semsynth
#SBATCH --nodes=1 --ntasks-per-node=1 --cpus-per-task=64 --mem=0
#SBATCH --gpus-per-node=8
#SBATCH --time=48:00:00 --requeue
#SBATCH --output=%x_%j.log
# Train on all GPUs of one machine (8 at the most; --nproc N for another number); run it as it is, or
# with sbatch. Started again, it goes on where it stopped. Further flags go to the training.
set -eo pipefail
cd "${SLURM_SUBMIT_DIR:-$(dirname "$0")/..}"
has() { python3 -c 'import importlib.util as u; exit(not u.find_spec("semsynth"))' 2>/dev/null; }
has || { [ -d .venv ] && PATH="$PWD/.venv/bin:$PATH"; } || true
has || { command -v conda >&2 && eval "$(conda shell.bash hook)" && conda activate sdm-training; } || true
has || { echo "error: semsynth is not installed here; see README.md, Set-up" >&2; exit 2; }
exec python3 -m semsynth.cli.launch scripts/train_semantic_diffusion.py "$@"
