"""What the text-to-image papers share: encoders of captions, and the game whose images are of captions."""
