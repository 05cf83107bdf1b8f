#!/usr/bin/env bash
#SBATCH --job-name=semsynth --output=%x_%j.log --open-mode=append
#SBATCH --nodes=1 --ntasks-per-node=8 --gpus-per-node=8 --cpus-per-task=8 --mem=0
#SBATCH --time=48:00:00 --requeue --signal=B:USR1@120
# Train on all GPUs at hand: on this machine (`--nproc N` for fewer), inside an
# allocation of salloc, or as `sbatch scripts/train_multi_gpu.sh`, whose own flags override the above
# (`sbatch --nodes=2 --partition=gpu scripts/train_multi_gpu.sh`). Started again, or requeued after a
# preemption, it resumes. Further flags go to the training. docs/how-to/cluster.md
set -eo pipefail
here=$(dirname "$0")/..; [ -f "$here/scripts/environment.sh" ] || here=${SLURM_SUBMIT_DIR:-.}
cd "$here" && [ -f scripts/environment.sh ] || { echo "error: sbatch it from the repository" >&2; exit 2; }
. scripts/environment.sh
# This process becomes the launcher, so that SLURM's signal for the batch script arrives there.
exec python3 -m semsynth.cli.cluster.launch scripts/train_semantic_diffusion.py "$@"
