"""How long a token is taken to be where nobody has counted: one guess, for every estimate and for made-up prompts."""

CHARS_PER_TOKEN = 4  # English text, vocabularies of some 100,000 tokens; what rests on it is marked as an estimate
