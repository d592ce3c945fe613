"""What is run by hand and by CI. A package, so that its parts and their tests can import each other by name."""
