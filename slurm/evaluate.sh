#!/usr/bin/env bash
#SBATCH --requeue --open-mode=append --output=%x_%j.log
# Score images on a SLURM cluster, on GPUS GPUs of one node: set these, then
# `bash slurm/evaluate.sh`, with the flags of `semsynth evaluate`. Statistics are summed over the
# processes; images are not gathered. After an array of generation:
# `AFTER=<its number> bash slurm/evaluate.sh`.
PARTITION=       # empty: the cluster's own
ACCOUNT=         # empty: yours
GPUS=1           # with a process each
CPUS=8           # of each process
MEMORY=64G
TIME=4:00:00
MAIL=            # an address, for mails about end and failure
AFTER=${AFTER:-} # a job that must have succeeded before

set -eu
if [ -z "${SLURM_JOB_ID:-}" ]; then
  command -v sbatch >/dev/null || { echo "error: sbatch: not found; run this on the cluster" >&2; exit 2; }
  cd "$(dirname "$0")/.."
  exec sbatch --job-name=evaluate --nodes=1 --ntasks="$GPUS" --gpus-per-node="$GPUS" \
    --cpus-per-task="$CPUS" --mem="$MEMORY" --time="$TIME" ${PARTITION:+--partition="$PARTITION"} \
    ${ACCOUNT:+--account="$ACCOUNT"} ${MAIL:+--mail-user="$MAIL" --mail-type=END,FAIL} \
    ${AFTER:+--dependency=afterok:"$AFTER"} slurm/evaluate.sh "$@"
fi
. scripts/environment.sh
exec srun --cpus-per-task="$SLURM_CPUS_PER_TASK" python3 scripts/evaluate_model.py "$@"
