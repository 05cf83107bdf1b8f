"""Scores of folders of images, and a report; for images of any system, not only ours."""
