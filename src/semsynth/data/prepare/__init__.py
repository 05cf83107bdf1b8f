"""`semsynth prepare`: from raw data to a prepared data set, and up to date again."""
