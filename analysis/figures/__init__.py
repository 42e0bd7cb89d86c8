"""One file a figure; each takes a frame and gives a matplotlib figure."""
