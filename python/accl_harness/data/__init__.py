"""Images, masks, weak labels and reference masks; nothing here knows about training."""
