"""What `fit` builds and runs."""
