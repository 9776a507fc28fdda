"""Results and findings as something to look at: HTML pages and pictures. What is HTML stands in `templates/`."""
