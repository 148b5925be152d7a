"""Speed, size and quality measured side by side; each module says what it runs and prints."""
