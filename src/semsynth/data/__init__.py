"""Labels, the preparation of data sets, and their reading; nothing here knows networks."""
