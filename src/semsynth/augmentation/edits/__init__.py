"""`semsynth edit`: new training pairs, made by editing pairs of the data; no networks, no torch."""
