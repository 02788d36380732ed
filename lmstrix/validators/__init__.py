"""Validators: the questions for a model, and the judgement of its replies."""
