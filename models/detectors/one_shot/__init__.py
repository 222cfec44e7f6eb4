"""A one-shot, fully convolutional face detector of our own: one pass finds all faces of a range of sizes."""
