"""Files and tensors: no Lightning, no model."""
