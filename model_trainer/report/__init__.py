"""Results and findings as HTML pages and pictures. All HTML is in `templates/`."""
