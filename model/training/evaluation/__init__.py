"""How good a preset is, measured: lips, motion and pictures of people it never saw, beside what can be reached at all."""
