"""The studio: draw a mask in the browser, see the image."""
