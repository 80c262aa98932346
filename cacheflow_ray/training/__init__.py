"""How the bundled model is made, from seeds alone: world -> vision tower -> bank of kept tokens -> language model."""
