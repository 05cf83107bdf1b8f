"""Reports side by side: paired differences, and the spread of runs that differ in the seed."""
