"""Reports for people: pure functions from results to text, Markdown and HTML."""
