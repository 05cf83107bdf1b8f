"""Raw data: what a source is, the files under a folder, their names, pairs of files, splits."""
