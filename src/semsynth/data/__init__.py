"""Labels, raw data sets to prepared ones, and their reading; knows no networks."""
