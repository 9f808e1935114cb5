"""The proof: what the engine predicts against what was measured and published elsewhere. See README.md here."""
