"""The method itself, pure: tensors in, tensors out."""
