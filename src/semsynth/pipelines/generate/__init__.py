"""Label maps to images: which ones, with which seeds, and nothing done twice."""
