"""``accl mark``: a folder opened in napari, to mark, train, look, and mark where it is wrong."""
