"""Training of the cascade, level by level: `levels.train_cascade`."""
