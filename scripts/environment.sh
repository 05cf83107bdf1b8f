# Sourced by the scripts that start jobs: puts a python3 that has semsynth on the PATH.
has() { python3 -c 'import importlib.util as u; exit(not u.find_spec("semsynth"))' 2>/dev/null; }
has || { [ -d .venv ] && PATH="$PWD/.venv/bin:$PATH"; } || true
has || { command -v conda >&2 && eval "$(conda shell.bash hook)" && conda activate sdm-training; } || true
has || { echo "error: semsynth is not installed here; see README.md, Set-up" >&2; exit 2; }
