"""Places where models live, one package for each."""
