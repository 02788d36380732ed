"""Validators: what a model is asked, and how a reply is judged."""
