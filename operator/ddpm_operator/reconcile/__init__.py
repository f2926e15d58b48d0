"""The parts of `reconcile`, each pure and about one question: what is wrong, what was said, what is due."""
