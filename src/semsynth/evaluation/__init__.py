"""Folders of images to numbers and a page; judges any system's folders, not only ours."""
