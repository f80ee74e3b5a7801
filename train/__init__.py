"""Training: a loop for all recipes, and what each recipe puts into it."""
