"""Label maps to pictures: which ones, with which seeds, and nothing done twice."""
